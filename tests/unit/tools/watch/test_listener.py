"""Listening to an engine that comes and goes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from imgload.core.errors import EngineFailed, EngineUnreachable
from imgload.engines.base import EventsOpened, ImageEvent
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest
from imgload.tools.watch import listener as listening
from imgload.tools.watch.listener import Back, Heard, Listener, Lost, Notice
from tests.unit.fakes import LocalEngine, engine_image

NEW = ImageEvent("app:dev", Digest.of(b"app"))
NEW_IMAGE = engine_image("new", ["app:v1"])
Step = ImageEvent | Exception | Callable[[], ImageEvent]


def seen(engine: LocalEngine) -> Heard:
    return Heard(engine, ImageEvent("app:v1", NEW_IMAGE.target), seen=True)


class Scripted(LocalEngine):
    """Tells what it is told to, one step at each opening of its stream, and then is quiet."""

    def __init__(self, folder: Path, *steps: Step, tells_every_build: bool = True) -> None:
        super().__init__(folder, endpoint=Endpoint("docker", "ssh://nowhere"))
        self.steps: list[Step] = list(steps)
        self.done = threading.Event()
        self.named = threading.Event()
        self.unreadable: list[Exception] = []
        self._tells = tells_every_build

    @property
    def tells_every_build(self) -> bool:
        return self._tells

    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        if self.named.is_set() and self.unreadable:
            raise self.unreadable.pop()
        names = super().names(references)
        self.named.set()
        return names

    def image_events(self, since: int | None) -> Iterator[EventsOpened | ImageEvent]:
        del since
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Exception):
            raise step
        yield EventsOpened()
        if step is None:
            self.done.wait()
        else:
            self.named.wait()
            yield step if isinstance(step, ImageEvent) else step()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_SHORTEST_PAUSE", 0.01)


def told_by(engine: Scripted, count: int) -> list[Notice]:
    """Return the first things told, and see that nothing more is."""
    told: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    listener = Listener(engine, told.put)
    listener.start()
    found = [told.get(timeout=10) for _ in range(count)]
    with pytest.raises(queue.Empty):
        told.get(timeout=0.1)
    listener.stop()
    engine.done.set()
    return found


def kinds(told: Sequence[Notice]) -> list[type]:
    return [type(each) for each in told]


def test_what_happens_is_passed_on(tmp_path: Path) -> None:
    """Also over streams that end."""
    engine = Scripted(tmp_path, NEW, NEW)
    assert told_by(engine, 2) == [Heard(engine, NEW), Heard(engine, NEW)]


def test_an_engine_that_is_gone_is_told_once_and_so_is_its_return(tmp_path: Path) -> None:
    """However often it was tried in between."""
    gone = EngineUnreachable("nobody answers")
    gone.__cause__ = ConnectionRefusedError()
    engine = Scripted(tmp_path, NEW, gone, NEW)
    assert kinds(told_by(engine, 4)) == [Heard, Lost, Back, Heard]


def test_an_engine_that_refuses_to_tell_is_not_called_back(tmp_path: Path) -> None:
    """Podman without an events logger answers everything else."""
    refusals = [EngineFailed("cannot read events") for _ in range(4)]
    assert kinds(told_by(Scripted(tmp_path, *refusals), 1)) == [Lost]
    assert kinds(told_by(Scripted(tmp_path, *refusals, NEW), 3)) == [Lost, Back, Heard]


def test_after_an_event_that_says_nothing_the_names_are_read(tmp_path: Path) -> None:
    """Podman 4.3 does not tell what it has loaded from an archive."""
    engine = Scripted(tmp_path)

    def load() -> ImageEvent:
        engine.images["new"] = NEW_IMAGE
        return ImageEvent()

    engine.steps.append(load)
    assert told_by(engine, 1) == [seen(engine)]


def test_where_builds_are_not_told_the_names_are_read_again_and_again(tmp_path: Path) -> None:
    """What was there before is not new."""
    engine = Scripted(tmp_path, tells_every_build=False)
    engine.images["old"] = engine_image("old", ["old:v1"])
    threading.Timer(0.05, engine.images.update, kwargs={"new": NEW_IMAGE}).start()
    assert told_by(engine, 1) == [seen(engine)]


def test_any_other_error_is_told_and_listening_goes_on(tmp_path: Path) -> None:
    """It would end the thread, and the watch would hear nothing more."""
    told = told_by(Scripted(tmp_path, NEW, RuntimeError("a fault of ours"), NEW), 4)
    assert kinds(told) == [Heard, Lost, Back, Heard]
    assert isinstance(told[1], Lost)
    assert isinstance(told[1].error, EngineFailed)


def test_names_that_cannot_be_read_are_told_and_read_again(tmp_path: Path) -> None:
    """Where builds are among no events, nothing is heard without them."""
    engine = Scripted(tmp_path, tells_every_build=False)
    engine.unreadable = [RuntimeError("a fault of ours"), EngineFailed("nonsense")]
    assert kinds(told_by(engine, 2)) == [Lost, Back]
