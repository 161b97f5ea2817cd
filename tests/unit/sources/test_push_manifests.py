"""Which of the manifests that were pushed is believed to be the image's."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from imgload.core.errors import EngineFailed, ImgloadError
from imgload.engines.base import EngineImage
from imgload.engines.cache import EngineCache
from imgload.engines.endpoint import Endpoint
from imgload.loader.loader import Loader
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, Index, Manifest
from imgload.oci.platform import Platform
from imgload.sources.base import Image as SourceImage
from imgload.sources.engine import EngineSource
from imgload.sources.push import documents_for, manifest_for
from tests.unit.archives import Image, layer
from tests.unit.samples import sourced
from tests.unit.stored import AMD, EMPTY, StoredEngine, StoredNode, _ask

IMAGE = Image()
OTHER = Image((layer("other"),))
"""As many layers, and a config of somebody else's."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def found(target: Digest, manifest: Digest | None = None) -> SourceImage:
    diff_ids = tuple(map(Digest.of, IMAGE.layers))
    image = sourced("", target, diff_ids)
    return attrs.evolve(image, image_id=None, manifest_digest=manifest, stored=True, tagged=True)


def index(*manifests: bytes, platform: Platform = AMD) -> bytes:
    return Index.build(tuple(Manifest.parse(m).descriptor(platform, "x") for m in manifests))


def pushes(*documents: bytes) -> dict[Digest, bytes]:
    return {Digest.of(raw): raw for raw in documents}


def other() -> bytes:
    """Return a manifest with as many layers as the image has."""
    value = json.loads(IMAGE.manifest)
    value["config"]["digest"] = str(Digest.of(b"somebody else's"))
    return json.dumps(value).encode()


def test_the_manifest_that_the_engine_reports_is_believed() -> None:
    """By its own digest, by its index, and by what Docker 28 reports of an index in part."""
    image, listed = Digest.of(IMAGE.manifest), index(IMAGE.manifest)
    for pushed, wanted in (
        (pushes(other(), IMAGE.manifest), found(image)),
        (pushes(other(), IMAGE.manifest, listed), found(Digest.of(listed))),
        (pushes(other(), IMAGE.manifest), found(Digest.of(listed), image)),
    ):
        manifest = manifest_for(pushed, wanted)
        assert manifest
        assert manifest.digest == image


def test_what_is_listed_and_no_image_is_left_out() -> None:
    """An index may list an index or an artifact without a platform."""
    children = IMAGE.manifest, index(OTHER.manifest), b'{"layers": []}'
    listed = Index.build(tuple(Descriptor("", Digest.of(child), len(child)) for child in children))
    manifest = manifest_for(pushes(*children, listed), found(Digest.of(listed)))
    assert manifest
    assert manifest.digest == Digest.of(IMAGE.manifest)


def test_no_other_is_believed() -> None:
    """Alone, listed by an index of its own, for another platform, or against the reported one."""
    listed = index(other())
    arm = index(IMAGE.manifest, platform=Platform("linux", "arm64"))
    image = Digest.of(IMAGE.manifest)
    for pushed, wanted in (
        (pushes(other()), found(image)),
        (pushes(other()), found(Digest.of(b"index"))),
        (pushes(other(), listed), found(image)),
        (pushes(IMAGE.manifest, arm), found(Digest.of(arm))),
        (pushes(IMAGE.manifest, other(), index(other())), found(Digest.of(listed), image)),
    ):
        manifest = manifest_for(pushed, wanted)
        assert manifest is None or manifest.digest == image
        assert manifest is None or wanted.manifest_digest == image


def test_a_registry_gets_nothing_that_somebody_else_pushed() -> None:
    """Children before their index; for an engine that reports configs, the one of its config."""
    listed = index(IMAGE.manifest)
    pushed = pushes(other(), listed, IMAGE.manifest)
    assert list(documents_for(pushed, found(Digest.of(listed)))) == [
        Digest.of(IMAGE.manifest),
        Digest.of(listed),
    ]
    by_config = attrs.evolve(found(IMAGE.image_id), image_id=IMAGE.image_id, stored=False)
    assert list(documents_for(pushed, by_config)) == [Digest.of(IMAGE.manifest)]
    second = json.dumps({**json.loads(IMAGE.manifest), "annotations": {"a": "b"}}).encode()
    assert documents_for(pushes(second, IMAGE.manifest), by_config) == {}


class Crowded(StoredEngine):
    """Does not get through, since somebody else takes all connections and pushes in its place."""

    pushes = 0

    def push(self, repository: str) -> None:
        """Fail after the insider has pushed under a tag."""
        self.pushes += 1
        host, _, path = repository.partition("/")
        _ask(host, "PUT", f"/v2/{path}/manifests/x", other())
        raise EngineFailed("pushing failed: 404")


def test_an_insiders_manifest_gives_an_image_no_id(tmp_path: Path) -> None:
    """Nor does anything of it stay in what is remembered; the engine is not asked twice."""
    engine = Crowded(tmp_path, IMAGE)
    source = EngineSource(engine)
    image = source.find("app:v1", None)
    assert image
    for _ in range(2):
        assert source.identify(image).image_id is None
    assert engine.pushes == 1
    assert EngineCache.load().image_id(source.address, engine.held.target) is None
    source.release()


def test_what_no_node_has_proven_is_not_remembered(
    tmp_path: Path,
) -> None:
    """Which layer a compressed blob is, only a node that has unpacked it has verified."""
    engine = StoredEngine(tmp_path, IMAGE)
    node = StoredNode(engine)
    node.after = EMPTY
    source = EngineSource(engine)
    with pytest.raises(ImgloadError):  # not proven; and this engine saves nothing
        Loader([source], [node]).load(["app:v1"], transport="delta")
    assert EngineCache.load().layers(source.address) == {}
    proven = StoredNode(engine)
    assert Loader([EngineSource(engine)], [proven]).load(["app:v1"], transport="delta").ok
    assert EngineCache.load().layers(source.address) != {}


ADDRESSES = {
    "unix:///run/docker.sock": True,
    "tcp://127.0.0.1:2375": True,
    "tcp://localhost:2376": True,
    "tcp://[::1]:2375": True,
    "tcp://10.0.0.1:2375": False,
    "tcp://127.0.0.1.example.org:2375": False,
    "tcp://docker:2375": False,
    "ssh://root@127.0.0.1/run/docker.sock": False,
    "ssh://build.example.org": False,
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_only_an_engine_on_this_machine_is_told_to_push(tmp_path: Path, url: str) -> None:
    """Any user of another machine may listen on its loopback."""
    endpoint = Endpoint("docker", url)
    assert endpoint.local is ADDRESSES[url]
    engine = StoredEngine(tmp_path, IMAGE)
    engine.endpoint = endpoint
    given: list[str] = []
    push_as_always = engine.push

    def push(repository: str) -> None:
        given.append(repository)
        push_as_always(repository)

    engine.push = push  # type: ignore[method-assign]
    source = EngineSource(engine)
    image = source.find("app:v1", None)
    assert image
    known = source.identify(image)
    assert (known.image_id == IMAGE.image_id) is ADDRESSES[url]
    assert bool(given) is ADDRESSES[url]
    assert (source.push_style(image) is not None) is ADDRESSES[url]
    source.release()


class Elsewhere(StoredEngine):
    """Asks and pushes to somebody else, who has the same port in the engine's network."""

    pushes, asked = 0, 0

    def look_up(self, repository: str) -> None:
        """Ask him."""
        del repository
        self.asked += 1

    def push(self, repository: str) -> None:
        """Succeed there."""
        del repository
        self.pushes += 1


def test_an_engine_whose_requests_go_elsewhere_is_given_nothing(tmp_path: Path) -> None:
    """It is remembered as cut off, and not asked again."""
    engine = Elsewhere(tmp_path, IMAGE)
    for _ in range(2):
        source = EngineSource(engine)
        image = source.find("app:v1", None)
        assert image
        assert source.identify(image).is_cut_off
    assert (engine.asked, engine.pushes, engine.given) == (1, 0, set())


def test_a_push_that_went_elsewhere_is_noticed(tmp_path: Path) -> None:
    """The engine was seen to reach this process, and does no more: it is asked anew first."""
    engine = Elsewhere(tmp_path, IMAGE)
    source = EngineSource(engine)
    source._reaches_us = True  # noqa: SLF001
    image = source.find("app:v1", None)
    assert image
    assert source.identify(image).is_cut_off
    assert EngineCache.load().is_unreachable(source.address)
    source.release()


def test_an_engine_that_reaches_us_is_asked_once(tmp_path: Path) -> None:
    """By a later run as well, for as long as the socket and our network are the same."""
    asked: list[str] = []
    socket = tmp_path / "engine.sock"
    socket.touch()

    def identified() -> EngineImage:
        engine = StoredEngine(tmp_path, IMAGE)
        look_up = engine.look_up

        def noted(repository: str) -> None:
            asked.append(repository)
            look_up(repository)

        engine.look_up = noted  # type: ignore[method-assign]
        source = EngineSource(engine)
        image = source.find("app:v1", None)
        assert image
        assert source.identify(image).image_id == IMAGE.image_id
        source.release()
        return engine.held

    identified()
    identified()
    assert len(asked) == 1
    socket.unlink()
    socket.touch()
    identified()
    assert len(asked) == 2
