"""The executor: one result for each image and node, whatever fails."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest

import imgload
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core.errors import EngineFailed, ImportFailed, NodeFull, NodeUnusable
from imgload.engines.cache import EngineCache
from imgload.loader.events import Event, NodeDone
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.sources.archive import ArchiveSource
from tests.unit import archives
from tests.unit.test_backends import MemoryNode, Shelf

IMAGE = archives.Image()


class FailingNode(MemoryNode):
    """Fails each import with one error."""

    def __init__(self, folder: Path, error: Exception) -> None:
        super().__init__(folder)
        self.name, self.error = "failing", error

    def import_layout(
        self, layout: Iterable[bytes | memoryview], platform: Platform, question: SurveyQuery
    ) -> Survey:
        del platform, question
        for _ in layout:
            pass
        raise self.error


class DeafNode(MemoryNode):
    """Cannot be surveyed."""

    def survey(self, question: SurveyQuery) -> Survey:
        del question
        raise NodeUnusable("no containerd", node=self.name)


class LosingNode(MemoryNode):
    """Reports a successful import, and has nothing."""

    def import_layout(
        self, layout: Iterable[bytes | memoryview], platform: Platform, question: SurveyQuery
    ) -> Survey:
        del platform
        for _ in layout:
            pass
        return self.survey(question)


class BrokenShelf(Shelf):
    """Saves nothing."""

    def save(self, images: object, platform: object, size: int = 0) -> object:  # type: ignore[override]
        del images, platform, size
        raise EngineFailed("the shelf broke", endpoint="unix:///shelf.sock")


def failure(loader: imgload.Loader) -> imgload.Report:
    with pytest.raises(imgload.LoadFailed) as caught:
        loader.load(IMAGE.name)
    return caught.value.report


@pytest.mark.parametrize("error", [ImportFailed("exit status 1"), NodeFull("no space")])
def test_a_node_that_fails_does_not_stop_the_others(tmp_path: Path, error: Exception) -> None:
    good, bad = MemoryNode(tmp_path), FailingNode(tmp_path, error)
    report = failure(imgload.Loader(Shelf(IMAGE), [bad, good]))
    [first, second] = report.images[0].nodes
    assert (first.node, first.ok, type(first.error)) == ("failing", False, type(error))
    assert first.error is not None
    assert first.error.node == "failing"
    assert second.ok
    assert archives.NAME in good.images()


def test_a_failed_import_teaches_the_cache_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although another node has the image: it verified other blobs."""
    good, bad = MemoryNode(tmp_path), FailingNode(tmp_path, ImportFailed("exit status 1"))
    imgload.Loader(Shelf(IMAGE), [good]).load(IMAGE.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    failure(imgload.Loader(Shelf(IMAGE), [good, bad]))
    assert EngineCache.load().plain_sizes() == {}
    imgload.Loader(Shelf(IMAGE), [MemoryNode(tmp_path)]).load(IMAGE.name)
    assert EngineCache.load().plain_sizes().keys() == set(map(Digest.of, IMAGE.layers))


def test_a_node_that_cannot_be_surveyed_is_reported(tmp_path: Path) -> None:
    good, deaf = MemoryNode(tmp_path), DeafNode(tmp_path)
    deaf.name = "deaf"
    report = failure(imgload.Loader(Shelf(IMAGE), [good, deaf]))
    by_name = {result.node: result for result in report.images[0].nodes}
    assert by_name["memory"].ok
    assert (by_name["deaf"].action, type(by_name["deaf"].error)) == (None, NodeUnusable)


def test_an_import_is_not_believed_without_the_image(tmp_path: Path) -> None:
    [result] = failure(imgload.Loader(Shelf(IMAGE), [LosingNode(tmp_path)])).images[0].nodes
    assert isinstance(result.error, imgload.NotVerified)
    assert result.error.image == archives.NAME


def test_the_error_of_the_source_is_raised_if_nothing_could_be_loaded(tmp_path: Path) -> None:
    loader = imgload.Loader(BrokenShelf(IMAGE), [MemoryNode(tmp_path)])
    with pytest.raises(EngineFailed) as caught:
        loader.load(IMAGE.name)
    assert caught.value.endpoint == "unix:///shelf.sock"


def test_a_dry_run_changes_nothing_and_counts_the_missing_bytes(tmp_path: Path) -> None:
    node = MemoryNode(tmp_path)
    report = imgload.Loader(Shelf(IMAGE), [node]).load(IMAGE.name, dry_run=True)
    [result] = report.images[0].nodes
    assert (result.action, result.transport) == ("full", None)
    assert result.bytes_missing == sum(map(len, IMAGE.layers))
    assert node.images() == {}


def test_each_result_is_an_event(tmp_path: Path) -> None:
    events: list[Event] = []
    loader = imgload.Loader(Shelf(IMAGE), [MemoryNode(tmp_path)])
    report = loader.load(IMAGE.name, on_event=events.append)
    done = [event for event in events if isinstance(event, NodeDone)]
    assert [(event.reference, event.result) for event in done] == [
        (archives.NAME, report.images[0].nodes[0])
    ]


class BasedNode(MemoryNode):
    """Has the lowest layer of `IMAGE` as a snapshot."""

    def survey(self, question: SurveyQuery) -> Survey:
        base = Digest.of(IMAGE.layers[0])
        survey = super().survey(question)
        return attrs.evolve(survey, snapshots=survey.snapshots | {base})


def source_of(folder: Path, members: list[archives.Entry]) -> ArchiveSource:
    (folder / "images.tar").write_bytes(archives.pack(members))
    return ArchiveSource(str(folder / "images.tar"))


def test_a_layer_that_the_archive_lacks_is_named_with_the_nodes_that_lack_it(
    tmp_path: Path,
) -> None:
    """The other nodes get the image."""
    sparse = [member for member in archives.oci(IMAGE) if member[1] != IMAGE.layers[0]]
    nodes = [BasedNode(tmp_path), MemoryNode(tmp_path), MemoryNode(tmp_path)]
    for node, name in zip(nodes, ("based", "one", "two"), strict=True):
        node.name = name
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.Loader(source_of(tmp_path, sparse), nodes).load(IMAGE.name)
    assert caught.value.exit_status == imgload.SourceError.exit_status
    [image] = caught.value.report.images
    assert [node.ok for node in image.nodes] == [True, False, False]
    for result in image.nodes[1:]:
        assert isinstance(result.error, imgload.SourceError)
        assert str(Digest.of(IMAGE.layers[0])) in result.error.message
        assert "one, two" in result.error.message
    with pytest.raises(imgload.SourceError):
        imgload.Loader(source_of(tmp_path, sparse), nodes[1:]).load(IMAGE.name)


def test_damaged_images_are_reported_after_the_others_are_loaded(tmp_path: Path) -> None:
    """Also those whose damage is seen during the transfer; only named images count."""
    damaged = archives.Image((archives.layer("damaged"),), "damaged:v1")
    absent = archives.Image((archives.layer("absent"),), "absent:v1")
    members = dict(archives.oci(IMAGE, damaged, absent))
    members[archives.blob(damaged.layers[0])[0]] = archives.layer("other")
    del members[archives.blob(absent.config)[0]]
    source, node = source_of(tmp_path, [*members.items()]), MemoryNode(tmp_path)
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.Loader(source, [node]).load([])
    assert caught.value.exit_status == imgload.SourceError.exit_status
    errors = {i.reference: i.nodes[0].error for i in caught.value.report.images}
    assert errors.pop(archives.NAME) is None
    assert set(errors) == {"docker.io/library/damaged:v1", "docker.io/library/absent:v1"}
    assert all(isinstance(error, imgload.SourceError) for error in errors.values())
    assert set(node.images()) == {archives.NAME}
    assert imgload.Loader(source, [node]).load(IMAGE.name).ok
    with pytest.raises(imgload.SourceError):
        imgload.Loader(source, [node]).load("absent:v1")
    with pytest.raises(imgload.LoadFailed):
        imgload.Loader(source, [node]).verify([])
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.Loader(source, [node]).load([], dry_run=True)
    assert caught.value.exit_status == imgload.SourceError.exit_status
    assert [name for name, _ in caught.value.report.failures()] == ["docker.io/library/absent:v1"]
