"""The archive transport, into nodes that are local processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Question
from imgload.core.errors import ArchiveInvalid, ImportFailed
from imgload.engines.endpoint import Endpoint
from imgload.engines.tls import Tls
from imgload.oci.platform import Platform
from imgload.oci.repack import Repack
from imgload.transports.archive import deliver
from imgload.transports.imports import Lanes, import_by_copy
from tests.unit.archives import Image, Layout, oci, pack, split, wanted
from tests.unit.fakes import RUNNING, LocalEngine

NOTHING = Question((), ())
AMD = Platform("linux", "amd64")
IMAGE = Image()
CTR = 'case "$*" in *import*) {};; version) ;; *ls) echo KEY;; esac'
KEEP = 'cat >"$(dirname "$0")/imported"'


def node_on(folder: Path, importing: str = KEEP) -> Node:
    folder.mkdir()
    scripts = {"ctr": CTR.format(importing), "containerd": "echo version = 2", "crictl": "exit 1"}
    node = Node(folder.name, LocalEngine(folder, scripts), RUNNING)
    node.survey(NOTHING)
    return node


def stream(data: bytes | None = None) -> Repack:
    return Repack(split(data or pack(oci(IMAGE)), 700), [wanted(IMAGE)])


def test_one_stream_feeds_all_nodes(tmp_path: Path) -> None:
    """Each imports the same, and what it took is counted."""
    nodes = [node_on(tmp_path / name) for name in "abc"]
    counted: dict[str, int] = {}

    def count(node: str, size: int) -> None:
        counted[node] = counted.get(node, 0) + size

    deliveries = deliver(stream(), Lanes.start(nodes, AMD, NOTHING, count))
    for name in "abc":
        data = (tmp_path / name / "imported").read_bytes()
        assert Layout.read(data).image_id() == IMAGE.image_id
        assert deliveries[name].error is None
        assert deliveries[name].bytes_sent == counted[name] == len(data)


@pytest.mark.parametrize("importing", ["exit 5", "head -c 100 >/dev/null; exit 5", "kill -9 $$"])
def test_a_node_that_fails_does_not_stop_the_others(tmp_path: Path, importing: str) -> None:
    """kind and k3d stop, or hang (k3d #900)."""
    nodes = [node_on(tmp_path / "bad", importing), node_on(tmp_path / "good")]
    deliveries = deliver(stream(), Lanes.start(nodes, AMD, NOTHING, lambda _node, _size: None))
    assert isinstance(deliveries["bad"].error, ImportFailed)
    assert deliveries["good"].error is None
    imported = (tmp_path / "good" / "imported").read_bytes()
    assert Layout.read(imported).image_id() == IMAGE.image_id


def test_a_broken_source_leaves_no_index_on_any_node(tmp_path: Path) -> None:
    """Without it there is no image, whatever else came (kind #2402)."""
    nodes = [node_on(tmp_path / name) for name in "ab"]
    damaged = pack(oci(IMAGE)).replace(b"app.txt", b"bad.txt")
    with pytest.raises(ArchiveInvalid):
        deliver(
            stream(damaged[: len(damaged) // 2]),
            Lanes.start(nodes, AMD, NOTHING, lambda _node, _size: None),
        )
    for imported in tmp_path.glob("*/imported"):
        assert b"index.json" not in imported.read_bytes()


def test_ctrl_c_ends_every_import(tmp_path: Path) -> None:
    """And is not swallowed."""
    nodes = [node_on(tmp_path / name) for name in "ab"]

    def interrupted() -> Iterator[bytes]:
        yield pack(oci(IMAGE))[:2000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(
            Repack(interrupted(), [wanted(IMAGE)]),
            Lanes.start(nodes, AMD, NOTHING, lambda _node, _size: None),
        )
    for imported in tmp_path.glob("*/imported"):
        assert b"index.json" not in imported.read_bytes()


def copying_node(tmp_path: Path, importing: str) -> Node:
    node = node_on(tmp_path / "node", importing)
    node.engine.endpoint = Endpoint("docker", "tcp://host:2376", tls=Tls())
    assert not node.engine.streams_exec
    return node


@pytest.mark.parametrize("importing", [KEEP, "cat >/dev/null; exit 5"])
def test_where_exec_cannot_stream_a_folder_is_used_and_removed(
    tmp_path: Path, importing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the import fails; minikube and k3d leave their tars."""
    monkeypatch.setattr("imgload.transports.imports._FOLDERS", str(tmp_path / "var"))
    node = copying_node(tmp_path, importing)
    if importing == KEEP:
        import_by_copy(node, stream(), AMD)
        imported = (tmp_path / "node" / "imported").read_bytes()
        assert imported.count(IMAGE.manifest) == 1
    else:
        with pytest.raises(ImportFailed, match="5"):
            import_by_copy(node, stream(), AMD)
    assert list((tmp_path / "var").iterdir()) == []
