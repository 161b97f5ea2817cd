"""The import transport, into nodes that are local processes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import SurveyQuery
from imgload.core.errors import ArchiveInvalid, ImportFailed
from imgload.engines.base import Chunk
from imgload.engines.endpoint import Endpoint, Tls
from imgload.oci.archive import ArchiveSender
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.transports.base import Delivery, Order
from imgload.transports.imports import ImportTransport
from tests.unit.archives import Image, Layout, Repack, oci, pack, split, wanted
from tests.unit.fakes import RUNNING, LocalEngine

NOTHING = SurveyQuery((), ())
AMD = Platform("linux", "amd64")
IMAGE = Image()
CTR = 'case "$*" in *import*) {};; version) ;; *ls) echo KEY;; esac'
OnBytes = Callable[[str, int], None]
KEEP = 'cat >"$(dirname "$0")/imported"'


def node_on(folder: Path, importing: str = KEEP) -> Node:
    folder.mkdir()
    scripts = {"ctr": CTR.format(importing), "containerd": "echo version = 2", "crictl": "exit 1"}
    node = Node(folder.name, LocalEngine(folder, scripts), RUNNING)
    node.survey(NOTHING)
    return node


def deliver(
    archive: Iterable[bytes], nodes: list[Node], on_bytes: OnBytes = lambda _node, _size: None
) -> Mapping[str, Delivery]:
    """Send the image in an archive to nodes."""
    shipment = ImportTransport().start(Order(nodes, AMD, NOTHING, on_bytes=on_bytes))
    try:
        if ArchiveSender(archive, [wanted(IMAGE)]).send(shipment):
            shipment.complete()
        return shipment.finish()
    except BaseException:
        shipment.abort()
        raise


def archive(data: bytes | None = None) -> Iterator[bytes]:
    return split(data or pack(oci(IMAGE)), 700)


def test_one_stream_feeds_all_nodes(tmp_path: Path) -> None:
    """All import the same content, and the bytes are counted."""
    nodes = [node_on(tmp_path / name) for name in "abc"]
    counted: dict[str, int] = {}

    def count(node: str, size: int) -> None:
        counted[node] = counted.get(node, 0) + size

    deliveries = deliver(archive(), nodes, count)
    for name in "abc":
        data = (tmp_path / name / "imported").read_bytes()
        assert Layout.read(data).image_id() == IMAGE.image_id
        assert deliveries[name].error is None
        assert deliveries[name].bytes_sent == counted[name] == len(data)


@pytest.mark.parametrize("importing", ["exit 5", "head -c 100 >/dev/null; exit 5", "kill -9 $$"])
def test_a_node_that_fails_does_not_stop_the_others(tmp_path: Path, importing: str) -> None:
    """kind and k3d stop, or hang (k3d #900)."""
    nodes = [node_on(tmp_path / "bad", importing), node_on(tmp_path / "good")]
    deliveries = deliver(archive(), nodes)
    assert isinstance(deliveries["bad"].error, ImportFailed)
    assert deliveries["good"].error is None
    imported = (tmp_path / "good" / "imported").read_bytes()
    assert Layout.read(imported).image_id() == IMAGE.image_id


def test_a_broken_source_leaves_no_index_on_any_node(tmp_path: Path) -> None:
    """Without index.json there is no image (kind #2402)."""
    nodes = [node_on(tmp_path / name) for name in "ab"]
    damaged = pack(oci(IMAGE)).replace(b"app.txt", b"bad.txt")
    with pytest.raises(ArchiveInvalid):
        deliver(archive(damaged[: len(damaged) // 2]), nodes)
    for imported in tmp_path.glob("*/imported"):
        assert b"index.json" not in imported.read_bytes()


def test_ctrl_c_ends_every_import(tmp_path: Path) -> None:
    """The KeyboardInterrupt is raised."""
    nodes = [node_on(tmp_path / name) for name in "ab"]

    def interrupted() -> Iterator[bytes]:
        yield pack(oci(IMAGE))[:2000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(interrupted(), nodes)
    for imported in tmp_path.glob("*/imported"):
        assert b"index.json" not in imported.read_bytes()


def copying_node(tmp_path: Path, importing: str) -> Node:
    node = node_on(tmp_path / "node", importing)
    node.engine.endpoint = Endpoint("docker", "tcp://host:2376", tls=Tls())
    assert not node.engine.streams_exec
    return node


@pytest.mark.parametrize("importing", [KEEP, "cat >/dev/null; exit 5"])
def test_import_by_copy_removes_its_folder(
    tmp_path: Path, importing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the import fails; minikube and k3d leave their tars."""
    monkeypatch.setattr("imgload.clusters.nodes.base._FOLDERS", str(tmp_path / "var"))
    node = copying_node(tmp_path, importing)
    if importing == KEEP:
        node.import_by_copy(Repack(archive(), [wanted(IMAGE)]), AMD, NOTHING)
        imported = (tmp_path / "node" / "imported").read_bytes()
        assert imported.count(IMAGE.manifest) == 1
    else:
        with pytest.raises(ImportFailed, match="5"):
            node.import_by_copy(Repack(archive(), [wanted(IMAGE)]), AMD, NOTHING)
    assert list((tmp_path / "var").iterdir()) == []


def test_sending_stops_when_no_node_reads(tmp_path: Path) -> None:
    """The engine need not save the rest of the image."""
    nodes = [node_on(tmp_path / name, "exit 5") for name in "ab"]
    large = Image((bytes(40 << 20),))
    pieces = split(pack(oci(large)), 1 << 16)
    shipment = ImportTransport().start(Order(nodes, AMD, NOTHING))
    assert ArchiveSender(pieces, [wanted(large)]).send(shipment) == {}
    assert len(list(pieces)) > 100
    assert all(isinstance(d.error, ImportFailed) for d in shipment.finish().values())


def test_import_by_copy_reads_targets_of_names_after_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload takes minutes, in which another run may load under the same name."""
    monkeypatch.setattr("imgload.clusters.nodes.base._FOLDERS", str(tmp_path / "var"))
    node = copying_node(tmp_path, "cat >/dev/null; exit 5")
    meanwhile = Digest.of(b"loaded meanwhile")
    row = f"echo app media/type {meanwhile} 1 linux/amd64 -"
    changed = CTR.replace("*ls)", f'*"images ls"*) echo REF; {row};; *ls)')

    def uploading() -> Iterator[Chunk]:
        (tmp_path / "node" / "ctr").write_text(f"#!/bin/sh\n{changed.format('exit 5')}\n")
        yield from Repack(archive(), [wanted(IMAGE)])

    with pytest.raises(ImportFailed):
        node.import_by_copy(uploading(), AMD, SurveyQuery(("app",), ()))
    assert node.before.records == {"app": meanwhile}
