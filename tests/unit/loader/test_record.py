"""The record of loads: its files, their bounds, and concurrent writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.cluster import Cluster, Member
from imgload.clusters.nodes.proof import Proof
from imgload.clusters.provider import K3d, Kind, NodeContainer
from imgload.core import trace
from imgload.engines.base import Container
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.loader import record
from imgload.loader.prepare import Request
from imgload.loader.record import (
    RecordedImage,
    change_record,
    read_record,
    record_load,
    record_path,
)
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.sources.archive import ArchiveSource
from imgload.sources.base import Image, Source
from imgload.sources.engine import EngineSource
from tests.unit.archives import Image as Archived
from tests.unit.archives import oci, pack
from tests.unit.fakes import LocalEngine

APP, DB = "docker.io/library/app:dev", "docker.io/library/db:dev"
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
AMD = Platform("linux", "amd64")
VERIFIED = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=True)
MEMBERS = ("kind-control-plane", "kind-worker", "kind-worker2")


def cluster(
    folder: Path, name: str = "kind", socket: str = "d.sock", kind: EngineKind = "docker"
) -> Cluster:
    engine = LocalEngine(folder, endpoint=Endpoint(kind, f"unix://{folder}/{socket}"))
    nodes = [Container(f"id-of-{name}-{n}", f"{name}-{n}", "running", {}) for n in (1, 2)]
    names = [attrs.evolve(node, name=member) for node, member in zip(nodes, MEMBERS, strict=False)]
    members = tuple(Member(NodeContainer(name, "worker", n), engine, Kind()) for n in names)
    return Cluster(name, engine, members, Kind())


def image(origin: Source, name: str = APP, query: str = "app:dev", *names: str) -> Image:
    return Image(origin, "id", names or (name,), ONE, ONE, AMD, (), 0, name=name, query=query)


def loaded(
    made: Cluster,
    *images: Image,
    ok: Sequence[str] = MEMBERS[:2],
    nodes: Sequence[str] = MEMBERS[:2],
    image_id: Digest = ONE,
    **options: Any,
) -> dict[str, RecordedImage]:
    """Record a load, and return the record."""
    results = [
        ImageResult(
            each.name,
            image_id,
            "docker",
            AMD,
            tuple(NodeResult(n, "full", VERIFIED if n in ok else None) for n in nodes),
        )
        for each in images
    ]
    request = Request([each.query for each in images if each.query], **options)
    record_load(made, nodes, {i.name: i for i in images}, request, Report(tuple(results)))
    return read_record(made)


def write_record(made: Cluster, *names: str) -> None:
    """Write a record without a load."""
    change_record(made, added=[RecordedImage(name, "unix:///x.sock", name) for name in names])


@pytest.fixture
def source(tmp_path: Path) -> EngineSource:
    return EngineSource(LocalEngine(tmp_path))


def test_nothing_is_recorded_at_first(tmp_path: Path, cache_folder: Path) -> None:
    """Reading makes no folder."""
    assert read_record(cluster(tmp_path)) == {}
    assert not cache_folder.exists()


def test_a_load_is_recorded_for_its_cluster(tmp_path: Path, source: EngineSource) -> None:
    """Neither for one of another name, nor engine, nor provider."""
    made = cluster(tmp_path)
    assert loaded(made, image(source)) == {APP: RecordedImage(APP, source.address, "app:dev", ONE)}
    assert read_record(cluster(tmp_path, "other")) == {}
    assert read_record(cluster(tmp_path, socket="other.sock")) == {}
    assert read_record(attrs.evolve(made, tool=K3d())) == {}


def test_a_cluster_that_was_created_again_is_the_same(tmp_path: Path, source: EngineSource) -> None:
    """Its nodes are other containers; a link may lead to the engine's socket."""
    stored = loaded(cluster(tmp_path), image(source))
    (tmp_path / "link.sock").symlink_to(tmp_path / "d.sock")
    again = cluster(tmp_path, socket="link.sock")
    assert read_record(attrs.evolve(again, members=())) == stored


@pytest.mark.parametrize(
    ("names", "query", "options", "expected"),
    [
        ((APP,), "app:dev", {}, "app:dev"),
        ((APP,), str(ONE), {}, APP),
        ((DB,), "app:dev", {"tag": "db:dev"}, "app:dev"),
        ((DB,), str(ONE), {"tag": "db:dev"}, str(ONE)),
        ((APP, DB), "app:dev", {"extra_tags": "db:dev"}, "app:dev"),
        ((APP,), "", {}, APP),
        ((APP, DB), "", {"extra_tags": "db:dev"}, APP),
        ((DB,), "", {"tag": "db:dev"}, ""),
        ((str(ONE),), "", {}, str(ONE)),
    ],
)
def test_the_record_has_the_name_by_which_the_source_has_the_image(
    tmp_path: Path, names: tuple[str, ...], query: str, options: dict[str, Any], expected: str
) -> None:
    """An ID only if the image has no other name there; empty for an archive's only image."""
    source = EngineSource(LocalEngine(tmp_path))
    stored = loaded(cluster(tmp_path), image(source, names[-1], query, *names), **options)
    assert stored[names[-1]].image == expected


def test_archives_are_recorded_by_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except for standard input, which has none."""
    (tmp_path / "app.tar").write_bytes(pack(oci(Archived())))
    monkeypatch.chdir(tmp_path)
    made = cluster(tmp_path)
    assert loaded(made, image(ArchiveSource("app.tar")))[APP].source == f"{tmp_path}/app.tar"
    stdin = ArchiveSource("app.tar")
    stdin.address = "-"
    assert loaded(made, image(stdin))[APP].source == "-"


def test_only_verified_images_and_the_requested_nodes_are_recorded(
    tmp_path: Path, source: EngineSource
) -> None:
    """A node that failed is restored as well; nodes are named if they are not all."""
    made = cluster(tmp_path)
    assert loaded(made, image(source), ok=()) == {}
    assert loaded(made, image(source), ok=MEMBERS[:1])[APP].nodes == ()
    elsewhere = loaded(made, image(source, DB), nodes=["other-worker"], ok=["other-worker"])
    assert DB not in elsewhere
    steps: list[tuple[Sequence[str], Sequence[str]]] = [
        (MEMBERS[:1], MEMBERS[:1]),
        (MEMBERS[1:2], MEMBERS[:2]),
    ]
    for nodes, expected in steps:
        assert loaded(made, image(source, DB), nodes=nodes)[DB].nodes == expected
    for nodes in MEMBERS[:2], MEMBERS[:1]:
        assert loaded(made, image(source, DB), nodes=nodes)[DB].nodes == ()


def test_the_newest_load_of_a_name_counts(tmp_path: Path, source: EngineSource) -> None:
    """It comes last."""
    made = cluster(tmp_path)
    loaded(made, image(source), image(source, DB, "db:dev"))
    stored = loaded(made, image(source), image_id=TWO, platform="arm64")
    assert list(stored) == [DB, APP]
    assert stored[APP].image_id == TWO
    assert str(stored[APP].platform) == "linux/arm64"


def test_an_unchanged_record_is_not_written(tmp_path: Path, source: EngineSource) -> None:
    made = cluster(tmp_path)
    loaded(made, image(source))
    before = record_path(made).stat()
    loaded(made, image(source))
    change_record(made, removed={DB})
    after = record_path(made).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_removed_images_are_not_recorded_any_more(tmp_path: Path, source: EngineSource) -> None:
    made = cluster(tmp_path)
    loaded(made, image(source), image(source, DB, "db:dev"))
    change_record(made, removed={APP, "docker.io/library/other:dev"})
    assert list(read_record(made)) == [DB]


def test_only_the_user_can_read_the_record(tmp_path: Path, source: EngineSource) -> None:
    made = cluster(tmp_path)
    loaded(made, image(source))
    path = record_path(made)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_oldest_images_and_clusters_are_dropped(
    tmp_path: Path, source: EngineSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_MAX_IMAGES", 2)
    monkeypatch.setattr(record, "_MAX_CLUSTERS", 2)
    made = [cluster(tmp_path, name) for name in "abc"]
    names = [f"docker.io/library/app:{n}" for n in (1, 2, 3)]
    for number, each in enumerate(made):
        assert list(loaded(each, *(image(source, n, n) for n in names))) == names[1:]
        os.utime(record_path(each), (number, number))
    loaded(made[2], image(source))
    assert [bool(read_record(each)) for each in made] == [False, True, True]
    monkeypatch.setattr(record, "_MAX_BYTES", record_path(made[2]).stat().st_size)
    assert list(loaded(made[2], image(source, DB, f"db:{'d' * 100}"))) == [DB]


def test_parallel_loads_keep_each_others_images(tmp_path: Path, cache_folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.loader.test_record import cluster, write_record\n"
        "made = cluster(Path(sys.argv[1]))\n"
        "for i in range(20):\n"
        "    write_record(made, f'docker.io/library/{sys.argv[2]}:{i}')"
    )
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache_folder.parent)}
    runs = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), n], env=environ)
        for n in "abc"
    ]
    assert [run.wait() for run in runs] == [0] * len(runs)
    assert len(read_record(cluster(tmp_path))) == 60


def test_a_load_works_if_it_cannot_be_recorded(
    tmp_path: Path,
    source: EngineSource,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log has the reason: here a file is in the folder's place."""
    cache_folder.parent.mkdir(parents=True, exist_ok=True)
    cache_folder.write_text("in the way")
    lines: list[str] = []
    monkeypatch.setattr(trace, "_write", lines.append)
    assert loaded(cluster(tmp_path), image(source)) == {}
    assert "the load is not recorded in" in lines[0]
    assert cache_folder.read_text() == "in the way"


def test_a_failed_write_keeps_the_old_record(
    tmp_path: Path, source: EngineSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full; no other file stays."""
    made = cluster(tmp_path)
    stored = loaded(made, image(source))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", fail)
        assert loaded(made, image(source, DB, "db:dev")) == stored
    assert len(list(record_path(made).parent.iterdir())) == 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "source", "image", "nodes"]), inner)
        ),
        max_leaves=8,
    )
)
def test_an_invalid_file_counts_as_empty(value: Any) -> None:
    made = cluster(Path("/nowhere"))
    path = record_path(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = ["kind", "kind", "unix:///nowhere/d.sock"]
    entry: dict[str, Any] = {
        "name": APP,
        "source": "/x",
        "image": "A!",
        "image_id": None,
        "platform": None,
        "nodes": [],
    }
    documents = ({"version": 1, "cluster": identity, "images": i} for i in ([value], [entry]))
    for document in (value, *documents):
        path.write_text(json.dumps(document))
        assert read_record(made) == {}
