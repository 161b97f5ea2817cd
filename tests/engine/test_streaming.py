"""Constant memory, bounded use of the disk, and no leftovers after an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import SurveyQuery
from imgload.engines.discovery.candidates import Candidate
from imgload.engines.discovery.discover import connect
from imgload.engines.discovery.probe import probe
from imgload.oci.archive import Wanted
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from tests.engine.aftermath import Setup, settled, until
from tests.engine.conftest import Images, cri_id, unique
from tests.lab import Lab
from tests.unit.archives import Repack

MIB = 1 << 20
MEASURED = """
import json, sys
import imgload
image, cluster, source, transport = sys.argv[1:]
report = imgload.load(image, cluster=cluster, source=source, transport=transport)
lines = [*open("/proc/self/status"), *open("/proc/self/io")]
fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
peak, written = int(fields["VmHWM"][0]), int(fields["write_bytes"][0])
used = report.images[0].nodes[0].transport
print(json.dumps({"peak": peak, "written": written, "transport": used}))
"""


LARGE = [
    ("docker", "lab-p21", 2000, "pull"),
    ("docker", "lab-p21", 2000, "import"),
    ("docker", "lab-p21", 300, "pull"),
    ("podman", "lab-d21", 300, "pull"),
    ("docker28", "lab-d21", 300, "pull"),
    ("docker28", "lab-d21", 300, "import"),
]


@pytest.mark.parametrize("case", LARGE, ids=lambda case: "-".join(map(str, case)))
def test_a_large_image_takes_little_memory_and_disk(
    lab: Lab, images: Images, case: tuple[str, str, int, str]
) -> None:
    """Under 80 MB of memory; an import writes nothing to the disk (minikube #17983).

    A pull writes each blob once.
    """
    (source, cluster, size, transport), tag = case, unique()
    images.build(lab.engine(source), tag, bytes(size * MIB))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tag, cluster, lab.engine(source).url, transport],
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout)
    assert measured["transport"] == transport
    assert measured["peak"] < 80 * 1024, "KiB"
    assert measured["written"] < MIB + (1.02 * size * MIB if transport == "pull" else 0)
    for node in lab.cluster(cluster).nodes:
        node.cri().remove_image(f"docker.io/library/{tag}")


RECEIVING = [
    ("docker", "lab-p17", "import"),
    ("docker28", "lab-d17", "pull"),
    ("docker28", "lab-d21", "pull"),
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("case", RECEIVING, ids="-".join)
def test_an_interrupted_load_leaves_nothing(
    lab: Lab, images: Images, tmp_path: Path, case: tuple[str, str, str], number: signal.Signals
) -> None:
    """While a node receives a blob: exit status 130 within two seconds, or a SIGKILL."""
    (source, cluster, transport), tag = case, unique()
    engine, node = lab.engine(source), lab.cluster(cluster).nodes[0]
    images.build(engine, tag, os.urandom(300 * MIB))
    setup = Setup(node, (), tmp_path / "temp")
    setup.temp.mkdir()
    before = setup.state()
    command = [sys.executable, "-m", "imgload", "load", tag, "-c", cluster, "--from", engine.url]
    command += ["--transport", transport]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=setup.environ()
    ) as process:
        until(lambda: len(setup.state().ingests) > len(before.ingests), 60)
        process.send_signal(number)
        start = time.monotonic()
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    assert time.monotonic() - start < 2
    assert "Traceback" not in stderr
    assert settled(setup, before) == before
    assert cri_id(node, f"docker.io/library/{tag}") is None


@pytest.mark.parametrize(("engine", "cluster"), [("docker", "lab-d17"), ("podman", "lab-p21")])
def test_an_import_by_copy_works_without_exec_streams(
    lab: Lab, images: Images, engine: str, cluster: str
) -> None:
    """Copied below /var, imported and removed; copies to /tmp and /run are lost (moby #22020)."""
    built, lab_node = lab.engine(engine), lab.cluster(cluster).nodes[0]
    tag = unique()
    image_id = images.build(built, tag, os.urandom(5 * MIB))
    name = f"docker.io/library/{tag}"
    opened = connect(probe(Candidate("docker", built.url, "the test")))
    container = opened.container(lab_node.name)
    assert container is not None
    node = Node(lab_node.name, opened, container)
    node.survey(SurveyQuery((), ()))
    with opened.save([tag], None) as archive:
        layout = Repack(archive, [Wanted(Digest.parse(image_id), (name,))])
        node.import_by_copy(layout, Platform("linux", "amd64"), SurveyQuery((), ()))
    opened.close()
    assert cri_id(lab_node, name) == image_id
    assert "imgload" not in lab_node.exec("ls", "/var/lib", "/tmp", "/run")


def test_archives_are_recognised_by_their_content(lab: Lab, images: Images, tmp_path: Path) -> None:
    """Every archive format with any file name; a truncated archive causes exit status 6."""
    tag = unique()
    image_id = images.build(lab.podman, tag, os.urandom(MIB))
    for number, form in enumerate(["docker-archive", "oci-archive"]):
        path = tmp_path / "archive.bin"
        path.write_bytes(lab.podman.raw("save", "--format", form, tag))
        name = f"docker.io/library/{tag}-{number}"
        done = _load(str(path), "--tag", name)
        assert done.returncode == 0, done.stderr
        assert cri_id(lab.cluster("lab-d21").nodes[0], name) == image_id
        path.write_bytes(path.read_bytes()[: MIB // 2])
        cut = _load(str(path), "--tag", "cut")
        assert cut.returncode == 6
        assert "cut off" in cut.stderr or "too early" in cut.stderr
        assert str(path) in cut.stderr


def _load(source: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imgload", "load", "--from", source, "-c", "lab-d21", *args],
        capture_output=True,
        text=True,
        check=False,
    )
