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
    """Takes one step at each opening of its event stream, and then is quiet."""

    def __init__(self, folder: Path, *steps: Step, reports_every_build: bool = True) -> None:
        super().__init__(folder, endpoint=Endpoint("docker", "ssh://nowhere"))
        self.steps: list[Step] = list(steps)
        self.done = threading.Event()
        self.named = threading.Event()
        self.unreadable: list[Exception] = []
        self._tells = reports_every_build

    @property
    def reports_every_build(self) -> bool:
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


def notices_of(engine: Scripted, count: int) -> list[Notice]:
    """Return the first notices, and check that there are no more."""
    notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
    listener = Listener(engine, notices.put)
    listener.start()
    first = [notices.get(timeout=10) for _ in range(count)]
    with pytest.raises(queue.Empty):
        notices.get(timeout=0.1)
    listener.stop()
    engine.done.set()
    return first


def kinds(notices: Sequence[Notice]) -> list[type]:
    return [type(notice) for notice in notices]


def test_listener_reports_events(tmp_path: Path) -> None:
    """Also across streams that end."""
    engine = Scripted(tmp_path, NEW, NEW)
    assert notices_of(engine, 2) == [Heard(engine, NEW), Heard(engine, NEW)]


def test_listener_reports_loss_and_return_once(tmp_path: Path) -> None:
    """However often it retried in between."""
    gone = EngineUnreachable("nobody answers")
    gone.__cause__ = ConnectionRefusedError()
    engine = Scripted(tmp_path, NEW, gone, NEW)
    assert kinds(notices_of(engine, 4)) == [Heard, Lost, Back, Heard]


def test_listener_does_not_report_return_while_events_are_refused(tmp_path: Path) -> None:
    """Podman without an events logger answers all other requests."""
    refusals = [EngineFailed("cannot read events") for _ in range(4)]
    assert kinds(notices_of(Scripted(tmp_path, *refusals), 1)) == [Lost]
    assert kinds(notices_of(Scripted(tmp_path, *refusals, NEW), 3)) == [Lost, Back, Heard]


def test_listener_reads_names_after_an_empty_event(tmp_path: Path) -> None:
    """Podman 4.3 does not report the image that it loaded from an archive."""
    engine = Scripted(tmp_path)

    def load() -> ImageEvent:
        engine.images["new"] = NEW_IMAGE
        return ImageEvent()

    engine.steps.append(load)
    assert notices_of(engine, 1) == [seen(engine)]


def test_listener_polls_names_if_builds_are_no_events(tmp_path: Path) -> None:
    """Images from before are not reported."""
    engine = Scripted(tmp_path, reports_every_build=False)
    engine.images["old"] = engine_image("old", ["old:v1"])
    threading.Timer(0.05, engine.images.update, kwargs={"new": NEW_IMAGE}).start()
    assert notices_of(engine, 1) == [seen(engine)]


def test_listener_reports_any_error_and_continues(tmp_path: Path) -> None:
    """It must not end the thread."""
    notices = notices_of(Scripted(tmp_path, NEW, RuntimeError("a fault of ours"), NEW), 4)
    assert kinds(notices) == [Heard, Lost, Back, Heard]
    assert isinstance(notices[1], Lost)
    assert isinstance(notices[1].error, EngineFailed)


def test_listener_reports_unreadable_names_and_retries(tmp_path: Path) -> None:
    """If builds are no events, names are the only way to see them."""
    engine = Scripted(tmp_path, reports_every_build=False)
    engine.unreadable = [RuntimeError("a fault of ours"), EngineFailed("nonsense")]
    assert kinds(notices_of(engine, 2)) == [Lost, Back]
