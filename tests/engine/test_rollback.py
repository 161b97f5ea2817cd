"""Rollback after a failed load, which changes only names that this load wrote."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import imgload
from imgload.core.errors import ImportFailed, NodeFull, NodeStalled, NodeUnusable
from imgload.engines import exec_stream as attached
from imgload.loader import execute as transfer
from imgload.sources.base import TransportOption
from tests.engine.aftermath import until
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.lab import Lab, Node

CTR = "/usr/bin/ctr"
HALF = """
case "$*" in *" images import "*)
  if mkdir /run/first-import 2>/dev/null; then
    {before}
    {ctr} "$1" "$2" images import --no-unpack {local} >&2
    {after}
  fi
esac
exec {ctr} "$@"
"""
HOLD = "while [ -e /run/hold-import ]; do sleep 0.1; done"
HOLDS = ("/run/first-import", "/run/second-import", "/run/hold-import")


@contextmanager
def program(node: Node, name: str, script: str) -> Iterator[None]:
    """Put a shell script before a program on the node's PATH."""
    path = f"/usr/local/bin/{name}"
    put = f"[ ! -e {path} ] || mv {path} {path}.real; cat >{path} && chmod +x {path}"
    node.exec("sh", "-c", put, stdin=f"#!/bin/sh\n{script}".encode())
    try:
        yield
    finally:
        node.exec("rm", "-rf", path, *HOLDS)
        node.exec("sh", "-c", f"[ ! -e {path}.real ] || mv {path}.real {path}")


def incomplete_import(*, before: str = ":", after: str = "exit 5") -> str:
    """Return a ctr whose first import names its image without unpacking it, and fails."""
    local = "--local --snapshotter=overlayfs --platform=linux/amd64 -"
    return HALF.format(before=before, after=after, ctr=CTR, local=local)


def has(node: Node, name: str) -> bool:
    """Return whether the node has a record with that name."""
    return bool(node.ctr("images", "ls", "-q", f"name=={name}").strip())


UNPACK = r"""
  target=$({ctr} "$1" "$2" images ls name=={name} | grep -o 'sha256:[0-9a-f]*' | head -n 1)
  {hold}
  exec {ctr} "$1" "$2" snapshots unpack "$target" >&2
"""


def test_a_load_fails_if_another_load_takes_its_name(lab: Lab, images: Images) -> None:
    """The other load takes the name while the first one unpacks its image."""
    node, slow, quick = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name = f"docker.io/library/{slow}"
    images.build(lab.docker, slow)
    image_id = images.build(lab.docker, quick)
    script = incomplete_import(after=UNPACK.format(ctr=CTR, name=name, hold=HOLD))
    with ThreadPoolExecutor() as pool, program(node, "ctr", script):
        node.exec("touch", "/run/hold-import")
        first = pool.submit(imgload.load, slow, cluster="lab-d21", transport="archive")
        until(lambda: has(node, name))
        assert imgload.load(quick, cluster="lab-d21", tag=slow).ok
        node.exec("rm", "/run/hold-import")
        with pytest.raises(imgload.LoadFailed) as caught:
            first.result()
    assert isinstance(caught.value.report.images[0].nodes[0].error, imgload.NotVerified)
    assert cri_id(node, name) == image_id
    forget(node, name)


def test_a_load_fails_if_its_name_moves_while_it_waits_for_a_node(lab: Lab, images: Images) -> None:
    """The first node was verified long before the end of the load."""
    nodes, slow, quick = lab.cluster("lab-d3").nodes, unique(), unique()
    name = f"docker.io/library/{slow}"
    images.build(lab.docker, slow)
    image_id = images.build(lab.docker, quick)
    script = f'case "$*" in *" import "*) {HOLD} ;; esac\nexec {CTR} "$@"'
    with ThreadPoolExecutor() as pool, program(nodes[1], "ctr", script):
        nodes[1].exec("touch", "/run/hold-import")
        first = pool.submit(imgload.load, slow, cluster="lab-d3", transport="archive")
        until(lambda: cri_id(nodes[0], name) is not None)
        imgload.load(quick, cluster="lab-d3", nodes=[nodes[0].name], tag=slow)
        threading.Event().wait(1.5)
        nodes[1].exec("rm", "/run/hold-import")
        with pytest.raises(imgload.LoadFailed) as caught:
            first.result()
    [(_, failure)] = caught.value.report.failures()
    assert failure.node == nodes[0].name
    assert isinstance(failure.error, imgload.NotVerified)
    assert cri_id(nodes[0], name) == image_id
    for node in nodes:
        forget(node, name)


@pytest.mark.long
@pytest.mark.parametrize("first", ["large", "small"])
def test_the_node_has_the_image_of_the_last_successful_load(
    lab: Lab, images: Images, first: str
) -> None:
    """Two processes load two builds under one name; one takes long to unpack."""
    node, name = lab.cluster("lab-d21").nodes[0], f"docker.io/library/{unique()}"
    tags = {"large": unique(), "small": unique()}
    files = [{f"f{i}": str(i).encode() for i in range(20_000)}]
    ids = {
        "large": lab.docker.build(tags["large"], layers=files),
        "small": images.build(lab.docker, tags["small"]),
    }
    ended: list[tuple[str, int]] = []

    def load(size: str) -> None:
        command = [sys.executable, "-m", "imgload", "load", tags[size], "--tag", name]
        done = subprocess.run([*command, "-c", "lab-d21"], capture_output=True, check=False)
        ended.append((size, done.returncode))

    other = "small" if first == "large" else "large"
    with ThreadPoolExecutor() as pool:
        running = pool.submit(load, first)
        until(lambda: has(node, name) or running.done(), 60)
        load(other)
        running.result()
    lab.docker.cli("rmi", "-f", tags["large"])
    last = [size for size, status in ended if status == 0][-1]
    assert cri_id(node, name) == ids[last]
    forget(node, name)


FAILURES = {
    "import failed": ("echo it is corrupt >&2; exit 5", ImportFailed),
    "node full": ("echo no space left on device >&2; exit 1", NodeFull),
    "stalled": ("sleep 8", NodeStalled),
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("order", ["writes first", "overwrites"])
def test_a_failed_load_keeps_the_image_of_another_load(
    lab: Lab,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, type[imgload.ImgloadError]],
    order: str,
) -> None:
    """Whether the failing load wrote the name before or after the other one."""
    (fails, kind), overwrites = case, order == "overwrites"
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name, other = f"docker.io/library/{tag}", unique()
    images.build(lab.docker, tag)
    good = images.build(lab.docker, other)
    monkeypatch.setattr(attached, "UNPACK_SECONDS", 4 if kind is NodeStalled else 60)
    script = (
        incomplete_import(before=HOLD, after=fails)
        if overwrites
        else incomplete_import(after=f"{HOLD}; {fails}")
    )
    with ThreadPoolExecutor() as pool, program(node, "ctr", script):
        node.exec("touch", "/run/hold-import")
        failing = pool.submit(imgload.load, tag, cluster="lab-d21", transport="archive")
        until(lambda: "first-import" in node.exec("ls", "/run"))
        if not overwrites:
            until(lambda: has(node, name))
        assert imgload.load(other, cluster="lab-d21", tag=tag).ok
        node.exec("rm", "-f", "/run/hold-import")
        with pytest.raises(imgload.LoadFailed) as caught:
            failing.result()
    assert isinstance(caught.value.report.images[0].nodes[0].error, kind)
    assert cri_id(node, name) == good
    forget(node, name)


def test_a_stalled_import_is_ended(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it could take the name from another, verified image."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    monkeypatch.setattr(attached, "UNPACK_SECONDS", 1)
    with (
        program(node, "ctr", incomplete_import(before="sleep 60")),
        pytest.raises(imgload.LoadFailed) as caught,
    ):
        imgload.load(tag, cluster="lab-d21", transport="archive")
    assert isinstance(caught.value.report.images[0].nodes[0].error, NodeStalled)
    running = node.exec("ps", "-o", "args")
    assert "images import" not in running
    assert "sleep 60" not in running


def test_a_stalled_pull_is_ended_before_the_import(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would otherwise run on after the load."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    image_id = images.build(lab.docker, tag)
    monkeypatch.setattr(attached, "SILENT_SECONDS", 3.0)
    script = f'case "$*" in *" images pull "*) sleep 60;; esac; exec {CTR} "$@"'
    with program(node, "ctr", script):
        report = imgload.load(tag, cluster="lab-d21")
    assert report.images[0].nodes[0].transport == "import"
    running = node.exec("ps", "-o", "args")
    assert "sleep 60" not in running
    assert "images pull" not in running
    assert cri_id(node, f"docker.io/library/{tag}") == image_id
    forget(node, f"docker.io/library/{tag}")


TWO = f"""
case "$*" in *" images import "*)
  {CTR} "$1" "$2" images import --no-unpack --local - >&2
  if mkdir /run/first-import 2>/dev/null; then {HOLD}; exit 5; fi
  touch /run/second-import
  while [ -e /run/second-import ]; do sleep 0.1; done
  target=$({CTR} "$1" "$2" images ls name=={{name}} | awk 'NR == 2 {{{{ print $3 }}}}')
  {{second}}
  exit
esac
exec {CTR} "$@"
"""
SECOND = {
    "is whole": f'{CTR} "$1" "$2" snapshots --snapshotter=overlayfs unpack "$target" >&2',
    "fails, too": "exit 5",
}


@pytest.mark.parametrize("case", SECOND)
def test_another_import_of_the_same_image_keeps_the_name(
    lab: Lab, images: Images, case: str
) -> None:
    """As long as that import runs; if it fails, too, the incomplete image is removed."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)

    def load() -> bool:
        try:
            return imgload.load(tag, cluster="lab-d21", transport="archive").ok
        except imgload.LoadFailed:
            return False

    script = TWO.format(name=name, second=SECOND[case])
    with ThreadPoolExecutor() as pool, program(node, "ctr", script):
        node.exec("touch", "/run/hold-import")
        first = pool.submit(load)
        until(lambda: "first-import\n" in node.exec("ls", "/run"))
        second = pool.submit(load)
        until(lambda: "second-import" in node.exec("ls", "/run"))
        node.exec("rm", "/run/hold-import")
        assert not first.result()
        assert has(node, name)
        node.exec("rm", "/run/second-import")
        assert second.result() is (case == "is whole")
    assert cri_id(node, name) == (image_id if case == "is whole" else None)
    assert has(node, name) is (case == "is whole")
    forget(node, name)


PULLS = f"""
case "$*" in
*" images import "*) exit 5 ;;
*" images pull "*)
  eval "hosts=\\${{$(($# - 1))}} name=\\${{$#}}"
  {CTR} "$1" "$2" content fetch --platform=linux/amd64 --hosts-dir "$hosts" "$name" >&2
  if mkdir /run/first-import 2>/dev/null; then {HOLD}; exit 5; fi
  touch /run/second-import
  while [ -e /run/second-import ]; do sleep 0.1; done ;;
esac
exec {CTR} "$@"
"""


def test_a_pull_of_the_same_image_keeps_the_name(lab: Lab, images: Images) -> None:
    """containerd 1.7 names an image before it unpacks it; another load fails in between."""
    node, tag = lab.cluster("lab-d17").nodes[0], unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)
    with ThreadPoolExecutor() as pool, program(node, "ctr", PULLS):
        node.exec("touch", "/run/hold-import")
        first = pool.submit(imgload.load, tag, cluster="lab-d17")
        until(lambda: "first-import" in node.exec("ls", "/run"))
        second = pool.submit(imgload.load, tag, cluster="lab-d17")
        until(lambda: "second-import" in node.exec("ls", "/run"))
        node.exec("rm", "/run/hold-import")
        assert isinstance(first.exception(), imgload.LoadFailed)
        assert has(node, name)
        node.exec("rm", "/run/second-import")
        assert second.result().images[0].nodes[0].transport == "pull"
    assert cri_id(node, name) == image_id
    forget(node, name)


def test_an_incomplete_image_loses_its_name_without_cri(lab: Lab, images: Images) -> None:
    """CRI has stopped answering when the import fails."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    dies = """[ ! -e /run/first-import ] || set -- -r unix:///run/nowhere.sock info
    exec /usr/local/bin/crictl.real "$@" """
    with program(node, "crictl", dies), program(node, "ctr", incomplete_import()):
        assert isinstance(_refused(tag, transport="import"), ImportFailed)
        assert not has(node, f"docker.io/library/{tag}")


def test_a_complete_image_unknown_to_cri_keeps_its_name(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may have reported the complete image as present."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", tag=other).ok
    monkeypatch.setattr(transfer, "PROOF_SECONDS", 0.3)
    with program(node, "crictl", "echo no such image >&2; exit 1"):
        assert isinstance(_refused(tag), imgload.NotVerified)
    assert cri_id(node, name) == image_id
    assert imgload.verify(tag, cluster="lab-d21", source="docker").ok
    forget(node, name, f"docker.io/library/{other}")


def test_an_image_whose_only_name_moves_is_sent(lab: Lab, images: Images) -> None:
    """The plan was to add a tag, but the image loses its only name before that."""
    node, tag, only, another = lab.cluster("lab-d21").nodes[0], unique(), unique(), unique()
    names = [f"docker.io/library/{name}" for name in (tag, only, another)]
    image_id = images.build(lab.docker, tag)
    images.build(lab.docker, another)
    assert imgload.load(tag, cluster="lab-d21", tag=only).ok
    assert imgload.load(another, cluster="lab-d21").ok

    def moved(event: imgload.Event) -> None:
        if isinstance(event, imgload.ImageFound):
            node.ctr("images", "tag", "--force", names[2], names[1])

    report = imgload.load(tag, cluster="lab-d21", source="docker", on_event=moved)
    assert report.images[0].nodes[0].action != "tagged"
    assert cri_id(node, names[0]) == image_id
    forget(node, *names)


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_failed_load_restores_the_previous_image(
    lab: Lab, images: Images, *, is_moved: bool
) -> None:
    """Also with a reused loader whose survey is older than another tool's change of the name."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name, between = f"docker.io/library/{tag}", unique()
    with imgload.Loader.connect(cluster="lab-d21", source="docker") as loader:
        earlier = images.build(lab.docker, tag)
        assert loader.load([tag]).ok
        if is_moved:
            earlier = images.build(lab.docker, between)
            assert imgload.load(between, cluster="lab-d21").ok
            node.ctr("images", "tag", "--force", f"docker.io/library/{between}", name)
        failed = images.build(lab.docker, tag)
        with program(node, "ctr", incomplete_import()), pytest.raises(imgload.LoadFailed):
            loader.load([tag], transport="archive")
    assert cri_id(node, name) == earlier
    assert not has(node, failed)
    forget(node, name, *([f"docker.io/library/{between}"] if is_moved else []))


def test_a_failed_load_keeps_an_existing_record_by_image_id(lab: Lab, images: Images) -> None:
    """It belongs to another name of the same image."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", tag=other).ok
    assert has(node, image_id)
    fails = f'case "$*" in *" images tag "*) exit 3;; esac; exec {CTR} "$@"'
    with program(node, "ctr", fails), pytest.raises(imgload.LoadFailed):
        imgload.load(tag, cluster="lab-d21")
    assert not has(node, name)
    assert has(node, image_id)
    forget(node, f"docker.io/library/{other}")


def test_a_failed_tag_is_rolled_back(lab: Lab, images: Images) -> None:
    """Old versions of ctr delete the record before they create the new one."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name = f"docker.io/library/{tag}"
    earlier = images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21").ok
    images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", tag=other).ok
    dies = f"""case "$*" in *" images tag --force"*) if mkdir /run/first-import 2>/dev/null; then
      {CTR} -n k8s.io images rm {name} >/dev/null; exit 137; fi;; esac; exec {CTR} "$@" """
    with program(node, "ctr", dies), pytest.raises(imgload.LoadFailed):
        imgload.load(tag, cluster="lab-d21")
    assert cri_id(node, name) == earlier
    forget(node, name, f"docker.io/library/{other}")


def test_the_pinned_label_is_not_copied_to_another_name(lab: Lab, images: Images) -> None:
    """``ctr images tag`` copies all labels."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name, pinned = f"docker.io/library/{tag}", f"docker.io/library/{other}"
    images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", tag=other).ok
    node.ctr("images", "label", pinned, "io.cri-containerd.pinned=pinned")
    report = imgload.load(tag, cluster="lab-d21")
    assert report.images[0].nodes[0].action == "tagged"
    assert "pinned=pinned" not in node.ctr("images", "ls", f"name=={name}")
    node.ctr("images", "label", pinned, "io.cri-containerd.pinned=")
    forget(node, name, pinned)


DEPRECATED = 'time="2026-11-29T03:00:00Z" level=warning msg="DEPRECATION: cgroup v1"'


def test_a_warning_is_not_the_reason_of_a_failure(lab: Lab, images: Images) -> None:
    """containerd 2.2 and later print warnings at the beginning and at the end."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    script = f"""echo '{DEPRECATED}' >&2
    case "$*" in *" images import "*) echo 'ctr: it is corrupt' >&2
      echo '{DEPRECATED}' >&2; exit 1;; esac; exec {CTR} "$@" """
    with program(node, "ctr", script):
        error = _refused(tag, transport="import")
    assert isinstance(error, ImportFailed)
    assert error.message.endswith("ctr: it is corrupt")


def _refused(tag: str, transport: TransportOption = "auto") -> imgload.ImgloadError:
    """Load, and return the error of the only node."""
    try:
        report = imgload.load(tag, cluster="lab-d21", transport=transport)
    except imgload.LoadFailed as error:
        report = error.report
    except imgload.ImgloadError as error:
        return error
    node_error = report.images[0].nodes[0].error
    assert node_error
    return node_error


def test_an_unreadable_snapshotter_fails_the_load(lab: Lab, images: Images) -> None:
    """Pods could not use an image in a guessed snapshotter."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    with program(node, "containerd", 'case "$*" in *dump*) exit 1;; esac'):
        error = _refused(tag)
    assert isinstance(error, NodeUnusable)
    assert "config dump" in error.hint
    assert not has(node, f"docker.io/library/{tag}")


def test_crictls_configuration_file_is_ignored(lab: Lab, images: Images) -> None:
    """It may name another socket, as on k3d's nodes."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    settings = b"runtime-endpoint: unix:///run/nowhere.sock\nimage-endpoint: unix:///run/no.sock\n"
    node.exec("sh", "-c", "cat >/etc/crictl.yaml", stdin=settings)
    try:
        proof = imgload.load(tag, cluster="lab-d21").images[0].nodes[0].proof
    finally:
        node.exec("rm", "/etc/crictl.yaml")
    assert proof
    assert proof.cri is True
    forget(node, f"docker.io/library/{tag}")


def test_a_crictl_that_cannot_connect_is_reported(lab: Lab, images: Images) -> None:
    """Not as an image that is missing."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    silent = "exec /usr/local/bin/crictl.real -r unix:///run/nowhere.sock info"
    with program(node, "crictl", silent):
        error = _refused(tag)
    assert isinstance(error, NodeUnusable)
    assert "nowhere.sock" in error.message


@pytest.mark.parametrize(
    "script",
    ["echo 'rpc error: code = Unknown desc = broken' >&2; exit 1", "echo '{'"],
    ids=["fails", "prints nonsense"],
)
def test_a_failing_crictl_is_not_reported_as_a_missing_image(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """By load, verify and doctor."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    image_id = images.build(lab.docker, tag)
    monkeypatch.setattr(transfer, "PROOF_SECONDS", 0.3)
    with program(node, "crictl", script):
        loaded = _refused(tag)
        with pytest.raises(imgload.LoadFailed) as verified:
            imgload.verify(tag, cluster="lab-d21", source="docker")
        diagnosis = imgload.diagnose(tag, cluster="lab-d21")
    assert isinstance(loaded, NodeUnusable)
    assert isinstance(verified.value.report.images[0].nodes[0].error, NodeUnusable)
    [problem] = [f for f in diagnosis.findings if (f.check, f.status) == ("image", "problem")]
    assert problem.hint.endswith("crictl info")
    assert cri_id(node, f"docker.io/library/{tag}") == image_id
    forget(node, f"docker.io/library/{tag}")


OTHER_FILE = """
sed 's/= "overlayfs"/= "native"/' /etc/containerd/config.toml >/etc/containerd/other.toml
cat >/usr/local/bin/containerd <<'END'
#!/bin/sh
[ $# -gt 0 ] || set -- -c /etc/containerd/other.toml
exec /usr/bin/containerd "$@"
END
chmod +x /usr/local/bin/containerd
"""


@pytest.mark.parametrize("is_edited", [True, False])
def test_a_reused_loader_detects_another_snapshotter(
    lab: Lab, images: Images, *, is_edited: bool
) -> None:
    """After a restart of containerd with a changed or with another configuration file."""
    cluster = lab.make_cluster(name="lab-again", engine="docker")
    node, tag = cluster.nodes[0], unique()
    try:
        with imgload.Loader.connect(cluster="lab-again", source="docker") as loader:
            images.build(lab.docker, tag)
            assert loader.load([tag]).ok
            edit = """sed -i 's/= "overlayfs"/= "native"/' /etc/containerd/config.toml"""
            node.exec("sh", "-c", edit if is_edited else OTHER_FILE)
            node.exec("sh", "-c", "kill $(pidof containerd)")
            threading.Event().wait(1)
            node.wait()
            image_id = images.build(lab.docker, tag)
            assert loader.load([tag]).ok
        assert "Committed" in node.ctr("snapshots", "--snapshotter", "native", "ls")
        assert cri_id(node, f"docker.io/library/{tag}") == image_id
    finally:
        cluster.remove()
