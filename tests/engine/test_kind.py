"""The drop-in for kind, compared with the real kind; docs/kind.md lists the differences."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from imgload.cli.dropin import run
from imgload.tools.dropins.install import install
from imgload.tools.dropins.tool import KIND
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.engine.peers import kind_load
from tests.lab import Lab
from tests.lab.kind import VERSIONS

FILE = "/etc/hostname"
"""Not an archive; errors about cluster and nodes come first."""
USAGE = """
load
load --help
load -h docker-image x
load foo
load help
load --nope
load -n x
load DOCKER-IMAGE x
load docker-image
load docker-image -h
load docker-image -hq
load docker-image x --help
load docker-image --help=maybe x
load docker-image -q
load -q docker-image
load docker-image --nope x
load docker-image --nam a x
load docker-image --name
load docker-image x -n
load docker-image x -qn
load docker-image -x x
load docker-image -qx x
load docker-image x --version
load docker-image --loglevel debug x
load docker-image -v x
load docker-image -v x y
load docker-image -vq x
load docker-image -v 99999999999 x
load docker-image -v 0x x
load docker-image -v '' x
load docker-image -v 09 x
load docker-image -q=no x
load docker-image --quiet= x
load docker-image --=x x
load docker-image ---x x
load docker-image -q- x
load image-archive
load image-archive -h
load image-archive --help
load image-archive -q
load image-archive --nodes
load image-archive /no/such/file
load image-archive /etc/hostname /no/such/file
load image-archive -
load image-archive -- -n
"""
"""Calls that need no cluster."""
WHERE = """
load image-archive FILE
load image-archive FILE --name a
load image-archive FILE --name=a
load image-archive FILE -n a
load image-archive FILE -na
load image-archive FILE -n=a
load image-archive -n a FILE
load -n a image-archive FILE
-n a load image-archive FILE
--name=a load image-archive FILE
load -q=false image-archive FILE -n a -n b
load image-archive FILE --name ''
load image-archive FILE -n= -v1
load image-archive FILE -v 0x0 -n a
load image-archive FILE -v 010 -n a
load image-archive FILE -v -1 -n a
load image-archive FILE -v 1_0 -n a
load image-archive FILE -q -n a
load image-archive FILE -n -q
load image-archive FILE --name HERE --nodes x
load image-archive FILE --name HERE --nodes x,y
load image-archive FILE --name HERE --nodes=y --nodes x
load image-archive FILE --name HERE --nodes NODE,x
load image-archive FILE --name HERE --nodes NODE,
load image-archive FILE --name HERE --nodes '"x,y"'
load image-archive FILE --name HERE --nodes ' NODE'
load image-archive FILE --name HERE --nodes 'NODE"'
load image-archive FILE -- --name HERE
load docker-image nope --name HERE
load docker-image nope -qn HERE
load docker-image --name HERE -- nope
"""
"""Calls that fail after the selection of the cluster; the error shows how they were parsed."""


@attrs.frozen
class Result:
    """The result of a call; the message without quotes, which kind uses inconsistently."""

    status: int
    prints: bool
    error: str

    @classmethod
    def of(cls, status: int, stdout: str, stderr: str) -> Result:
        lines = [line for line in stderr.splitlines() if line.startswith("ERROR")]
        return cls(status, bool(stdout), "".join(lines[:1]).replace('"', ""))


Call = Callable[..., Result]


@pytest.fixture
def ours(capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a function that calls the drop-in in this process."""

    def call(*arguments: str) -> Result:
        return Result.of(run(KIND, arguments), *capfd.readouterr())

    return call


@pytest.fixture
def real(lab: Lab) -> Call:
    """Return a function that calls all versions of the real kind, which must agree."""

    def call(*arguments: str) -> Result:
        env = {**os.environ, **lab.environ()}
        answers = set()
        for version in VERSIONS:
            done = subprocess.run(
                [lab.kind(version), *arguments],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            answers.add(Result.of(done.returncode, done.stdout, done.stderr))
        [answer] = answers
        return answer

    return call


def agrees(one: Result, other: Result) -> bool:
    """Return whether the drop-in's error is kind's; the drop-in's may be longer."""
    if one.error.startswith("ERROR: invalid argument"):
        cause = one.error.partition(" flag: ")[0]
        return attrs.evolve(one, error="") == attrs.evolve(other, error="") and (
            other.error.startswith(cause)
        )
    return attrs.evolve(one, error=other.error) == other and other.error.startswith(one.error)


def test_wrong_usage_is_reported_as_by_kind(real: Call, ours: Call) -> None:
    """With the same exit status, output on stdout or not, and message."""
    for line in USAGE.split("\n")[1:-1]:
        arguments = shlex.split(line)
        kinds, own = real(*arguments), ours(*arguments)
        assert agrees(kinds, own), line


def test_cluster_and_node_options_are_parsed_as_by_kind(lab: Lab, real: Call, ours: Call) -> None:
    """At any position and in any spelling; the last of several is used."""
    cluster = lab.cluster("lab-d21")
    names = {"FILE": FILE, "HERE": cluster.name, "NODE": cluster.nodes[0].name}
    for line in WHERE.split("\n")[1:-1]:
        for short, name in names.items():
            line = line.replace(short, name)  # noqa: PLW2901 - filled in
        arguments = shlex.split(line)
        kinds, own = real(*arguments), ours(*arguments)
        assert agrees(kinds, own), line


def test_variables_are_read_as_by_kind(
    real: Call, ours: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--name overrides the variable unless it is empty; an unknown provider is ignored."""
    for name in ("a", ""):
        monkeypatch.setenv("KIND_CLUSTER_NAME", name)
        for arguments in (["-n", "b"], ["-n", ""], []):
            call = ["load", "image-archive", FILE, *arguments]
            assert agrees(real(*call), ours(*call)), (name, arguments)
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "vagrant")
    assert agrees(real(*call), ours(*call))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_drop_in_loads_the_same_images_as_kind(
    lab: Lab, images: Images, ours: Call, tmp_path: Path, version: str
) -> None:
    """By name and from archives; CRI has them under the same names and IDs."""
    cluster, tags = lab.cluster("lab-d21"), [unique() for _ in range(4)]
    ids = [images.build(lab.docker, tag) for tag in tags]
    names = [f"docker.io/library/{tag}" for tag in tags]
    archives = [str(tmp_path / name) for name in "ab"]
    for archive, tag in zip(archives, tags[2:], strict=True):
        lab.docker.cli("save", "-o", archive, tag)
    calls = [["docker-image", *tags[:2]], ["image-archive", *archives]]
    kinds = [kind_load(lab, cluster, *call, version=version) for call in calls]
    assert [(done.returncode, done.stdout) for done in kinds] == [(0, "")] * 2
    [node] = cluster.nodes
    assert [cri_id(node, name) for name in names] == ids
    forget(node, *names)
    for call in calls:
        assert ours("load", *call, "-n", cluster.name) == Result(0, prints=False, error="")
    assert [cri_id(node, name) for name in names] == ids
    forget(node, *names)


def test_only_selected_nodes_get_the_image(lab: Lab, images: Images, ours: Call) -> None:
    """The drop-in loads two of the nodes, and the real kind the third one."""
    cluster, tag = lab.cluster("lab-d3"), unique()
    name, image_id = f"docker.io/library/{tag}", images.build(lab.docker, tag)
    head, *workers = cluster.nodes
    chosen = ",".join(node.name for node in workers)
    assert ours("load", "docker-image", tag, "-n", cluster.name, "--nodes", chosen).status == 0
    assert [cri_id(node, name) for node in cluster.nodes] == [None, image_id, image_id]
    done = kind_load(lab, cluster, "docker-image", tag, "--nodes", head.name)
    assert (done.returncode, cri_id(head, name)) == (0, image_id)
    for node in cluster.nodes:
        forget(node, name)


def test_the_image_comes_from_the_engine_that_runs_the_cluster(
    lab: Lab, images: Images, ours: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If both engines have an image with that name; kind always uses Docker's (no. 1)."""
    tag = unique()
    name = f"docker.io/library/{tag}"
    built = [images.build(engine, tag) for engine in (lab.docker, lab.podman)]
    for cluster, provider, image_id in [
        ("lab-d21", "", built[0]),
        ("lab-p21", "", built[1]),
        ("lab-p21", "podman", built[1]),
    ]:
        [node] = lab.cluster(cluster).nodes
        monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", provider)
        assert ours("load", "docker-image", tag, "-n", cluster).status == 0
        assert cri_id(node, name) == image_id
        forget(node, name)


def test_an_installed_drop_in_replaces_kind(lab: Lab, images: Images, tmp_path: Path) -> None:
    """It loads images, as Skaffold calls it, and passes other commands to the real kind."""
    cluster, tag = lab.cluster("lab-d21"), unique()
    image_id = images.build(lab.docker, tag)
    install("kind", "kind load", tmp_path)
    call = caller(lab, tmp_path)
    done = call(f"kind load docker-image --name {cluster.name} {tag}")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    [node] = cluster.nodes
    name = f"docker.io/library/{tag}"
    assert cri_id(node, name) == image_id
    assert {n for n in records(node) if n.startswith("import-")} == set()
    forget(node, name)
    assert cluster.name in call("kind get clusters").stdout.split()
    assert call("kind --version").stdout.startswith("kind version 0.")
    unknown = call("kind frobnicate")
    assert (unknown.returncode, unknown.stdout) == (1, "")


def caller(lab: Lab, folder: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Return a function that runs a command with the drop-in before the real kind on PATH."""
    source = Path(__file__).parents[2] / "src"
    own = {**os.environ, **lab.environ(), "PYTHONPATH": str(source)}
    own["PATH"] = f"{folder}:{lab.kind(VERSIONS[-1]).parent}:{own['PATH']}"

    def call(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command], env=own, capture_output=True, text=True, check=False
        )

    return call


def test_a_failing_node_causes_exit_status_1(lab: Lab, images: Images, ours: Call) -> None:
    """The others get the image; the real kind stops at the first failure."""
    cluster, tag = lab.cluster("lab-d3"), unique()
    name, image_id = f"docker.io/library/{tag}", images.build(lab.docker, tag)
    *well, broken = cluster.nodes
    lab.docker.cli("pause", broken.name)
    try:
        result = ours("load", "docker-image", tag, "-n", cluster.name)
        assert result == Result(1, prints=False, error=result.error)
        assert broken.name in result.error
    finally:
        lab.docker.cli("unpause", broken.name)
    assert [cri_id(node, name) for node in well] == [image_id] * 2
    for node in well:
        forget(node, name)
