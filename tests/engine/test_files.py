"""`--verify files`: the unpacked files on a node are those of the source's layers."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload
from benchmarks.archives import DOCKER, OCI
from benchmarks.real import Content, real_archive
from imgload.core.compression import Compression
from tests.engine.aftermath import until
from tests.engine.conftest import forget, unique
from tests.engine.kinds import Made, layer, oci, old
from tests.lab import Lab, Node
from tests.lab.debian import Suite
from tests.unit.archives import pack
from tests.unit.layers import Layer, odd_layers, sparse_layer

SNAPSHOTS = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
DEBIAN_SIZE = 300
ZSTD = "oci-zstd"
"""MB: Python with packages, without the largest ones."""
MOUNTED = (
    "grep -c ' /var/lib/imgload-[0-9a-f]* ' /proc/mounts; ls -d /var/lib/imgload-*;"
    " ctr -n k8s.io leases ls -q"
)


def leftovers(node: Node) -> str:
    return node.exec("sh", "-c", f"{{ {MOUNTED}; }} 2>/dev/null; :").strip()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imgload", *arguments]


def odd_image() -> Made:
    return Made(tag := unique("odd"), odd_layers(tag))


def test_every_kind_of_file_is_compared(lab: Lab, tmp_path: Path) -> None:
    """With the files of each kind of store."""
    node, made = lab.cluster("lab-d21").nodes[0], odd_image()
    (archive := tmp_path / "odd.tar").write_bytes(pack(old([made])))
    for engine in map(lab.engine, ("docker", "docker28", "podman")):
        engine.cli("load", "-i", archive)
        report = imgload.load(made.name, cluster="lab-d21", source=engine.url, verify="contents")
        proof = report.images[0].nodes[0].proof
        assert proof
        assert proof.files is True
        engine.remove_image(made.name)
    assert leftovers(node) == "0"
    forget(node, f"docker.io/library/{made.name}")


@pytest.mark.parametrize("cluster", ["lab-d21", "lab-d16", "lab-p17"])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"], ids=("plain", "gzip", "zstd"))
def test_files_of_archives_are_compared(
    lab: Lab, tmp_path: Path, compression: Compression, cluster: str
) -> None:
    """One has a sparse file, which Docker does not save."""
    node, tag = lab.cluster(cluster).nodes[0], unique("odd")
    made = Made(tag, (*odd_layers(tag), sparse_layer()), compression)
    (archive := tmp_path / "odd.tar").write_bytes(pack(oci([made])))
    imgload.load((), cluster=cluster, source=archive)
    assert imgload.verify((), cluster=cluster, source=archive, files=True).ok
    assert imgload.verify((), cluster=cluster, source=archive, contents=True).ok
    forget(node, f"docker.io/library/{made.name}")


@pytest.mark.long
def test_a_rootless_node_has_no_device_files(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """containerd creates none in a user namespace; the other files are compared."""
    monkeypatch.setenv("CONTAINER_HOST", lab.engine("podman-rootless").url)
    node, made = lab.cluster("lab-r21").nodes[0], Made(unique("odd"), (ROOTLESS.tar,))
    (archive := tmp_path / "odd.tar").write_bytes(pack(oci([made])))
    assert imgload.load((), cluster="lab-r21", source=archive, verify="contents").ok
    damage(node, "owned", "chown 5 owned")
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.verify((), cluster="lab-r21", source=archive, files=True)
    assert caught.value.message.endswith("/owned: belongs to 5:60000, not 1000:60000")
    forget(node, f"docker.io/library/{made.name}")


ROOTLESS = Layer().add("owned", b"x", owner=(1000, 60000)).add("suid", mode=0o4755)
ROOTLESS.add("null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
BASE, MIDDLE, TOP = "fifo", "here", "pair"
"""A file that only one of the layers has at its root."""


def damage(node: Node, layer: str, command: str) -> None:
    """Run a shell command in the folder of the newest snapshot that unpacks a layer."""
    find = (
        f'for folder in $(ls -dt {SNAPSHOTS}/*/fs); do cd "$folder"; [ ! -e "$1" ] || break; done'
    )
    node.exec("sh", "-c", f"{find}; {command}", "sh", layer)


DAMAGE = {
    "/deleted": (MIDDLE, "[ -c deleted ] && rm deleted"),
    "/opaque/lower": (MIDDLE, "rm -r opaque && mkdir opaque && printf 13 >opaque/own"),
    "/opaque/lower/file": (MIDDLE, "true"),
    "/etc/owned": (BASE, "rm etc/owned"),
    "/empty": (BASE, "echo more >empty"),
    "/etc/setuid": (BASE, "chmod 755 etc/setuid"),
    "/extra": (TOP, "echo extra >extra"),
    "/absolute": (BASE, "ln -sfn elsewhere absolute"),
    "/char": (BASE, "rm char && mknod -m 666 char c 1 5"),
    "/pair-2": (TOP, "cp -p pair copy && mv copy pair-2"),
}


def test_damaged_files_are_named(lab: Lab, tmp_path: Path) -> None:
    """A lost whiteout, missing, changed and additional files; the hint repairs them."""
    node, made = lab.cluster("lab-d21").nodes[0], odd_image()
    (archive := tmp_path / "odd.tar").write_bytes(pack(oci([made])))
    options = ("--from", str(archive), "-c", "lab-d21", "-o", "json")
    assert imgload.load((), cluster="lab-d21", source=archive, verify="files").ok
    for where, change in DAMAGE.values():
        damage(node, where, change)

    ended = subprocess.run(
        command("verify", "--files", *options), capture_output=True, text=True, check=False
    )

    result = json.loads(ended.stdout)["images"][0]["nodes"][0]
    message = result["error"]["message"]
    assert ended.returncode == 1
    assert result["proof"]["files"] is False
    assert sum(f"{path}: " in message for path in DAMAGE) == 5
    assert f"and {len(DAMAGE) - 5} more" in message, message
    damage(node, BASE, "printf X >noted")
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.load((), cluster="lab-d21", source=archive, verify="contents")
    assert f"and {len(DAMAGE) - 4} more" in caught.value.report.images[0].nodes[0].error_text
    repair = shlex.split(result["error"]["hint"].partition(", and load")[0])
    subprocess.run([*lab.docker.client, *repair[1:]], check=True)
    assert imgload.load((), cluster="lab-d21", source=archive, verify="contents").ok
    forget(node, f"docker.io/library/{made.name}")


KILL_SCRIPT = "kill -9 $(grep -l '[c]at /proc/self/uid_map' /proc/[0-9]*/cmdline | cut -d/ -f3)"


@pytest.fixture
def listing(lab: Lab, cluster: str, tmp_path: Path) -> Iterator[tuple[Node, subprocess.Popen[str]]]:
    """A node with a mounted image, of which imgload reads a large file, which has only holes."""
    node, made = lab.cluster(cluster).nodes[0], Made(unique("listed"), (layer("holes"),))
    (archive := tmp_path / "app.tar").write_bytes(pack(oci([made])))
    imgload.load((), cluster=cluster, source=archive)
    damage(node, "holes", "truncate -s 50G holes")
    words = command("verify", "--contents", "--from", str(archive), "-c", cluster)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: leftovers(node).startswith("1\n/var/lib/imgload-"))
        yield node, process
        process.kill()
    damage(node, "holes", "truncate -s 64 holes")
    subprocess.run(words, check=True)  # it removes what a killed one left
    assert leftovers(node) == "0"
    forget(node, f"docker.io/library/{made.name}")


@pytest.mark.parametrize("cluster", ["lab-d21", "lab-p17"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_nothing_stays_mounted_if_imgload_is_ended(
    listing: tuple[Node, subprocess.Popen[str]], sent: signal.Signals
) -> None:
    """The node's script notices the end of its input."""
    node, process = listing
    process.send_signal(sent)
    assert process.wait(20) == (130 if sent == signal.SIGINT else -sent)
    until(lambda: leftovers(node) == "0" and "sha256sum" not in node.exec("ps"))


@pytest.mark.parametrize("cluster", ["lab-d21"])
def test_the_next_run_unmounts_what_a_killed_script_left(
    listing: tuple[Node, subprocess.Popen[str]],
) -> None:
    """Imgload was killed as well."""
    node, process = listing
    process.send_signal(signal.SIGSTOP)
    node.exec("sh", "-c", KILL_SCRIPT)
    process.kill()
    assert leftovers(node) != "0"


def many_layers(tag: str) -> tuple[bytes, ...]:
    """Return 40 layers, of which each removes and adds files of the ones below."""
    layers = list(odd_layers(tag))
    for number in range(40 - len(layers)):
        layer = Layer().add(f"numbers/{number}", b"%d" % number).add(f"numbers/.wh.{number - 2}")
        layer.folder(f"folder-{number % 3}").add(f"folder-{number % 3}/.wh..wh..opq")
        layers.append(layer.add(f"folder-{number % 3}/{number}/file").tar)
    return tuple(layers)


def real(lab: Lab, folder: Path, kind: str, form: str) -> tuple[Path, str]:
    """Return the archive of an image of a kind, and its name."""
    if kind == "debian":
        content: Content = "zstd" if form == ZSTD else "real"
        kept, target = lab.paths.cache, lab.paths.folder()
        image = real_archive(kept, target, DEBIAN_SIZE, DOCKER if form == DOCKER else OCI, content)
        assert image.file
        return image.file, image.name
    layers = many_layers(tag := unique(kind))
    if kind == "static":
        tree = Suite("bookworm", lab.paths.cache).tree("static", "busybox-static")
        app = (tree / "bin/busybox").read_bytes()
        layers = (Layer().add("app", app, mode=0o755).add("id", tag.encode()).tar,)
    compression: dict[str, Compression] = {OCI: "gzip", ZSTD: "zstd", DOCKER: ""}
    made = Made(tag, layers, compression[form])
    (archive := folder / "real.tar").write_bytes(pack((old if form == DOCKER else oci)([made])))
    return archive, f"docker.io/library/{tag}"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["debian", "static", "40-layers"])
@pytest.mark.parametrize(
    ("source", "form"),
    [
        *(("", form) for form in (OCI, ZSTD)),
        *(("docker28", form) for form in (OCI, ZSTD)),
        *((engine, DOCKER) for engine in ("docker", "docker28-graphdriver", "podman")),
    ],
)
def test_real_images_are_unpacked_completely(
    lab: Lab, tmp_path: Path, source: str, form: str, kind: str
) -> None:
    """From archives, and from engines that have loaded them; containerd unpacks what they saved."""
    node, (archive, name) = lab.cluster("lab-d21").nodes[0], real(lab, tmp_path, kind, form)
    short = name.removeprefix("docker.io/library/")
    try:
        if source:
            lab.engine(source).cli("load", "-i", archive)
        url = lab.engine(source).url if source else str(archive)
        report = imgload.load(short, cluster="lab-d21", source=url, verify="contents")
        proof = report.images[0].nodes[0].proof
        assert proof
        assert proof.files is True
    finally:
        if source:
            lab.engine(source).remove_image(short)
        forget(node, name)
