"""What the two engines' HTTP interfaces have in common: containers, and commands in them."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from re import Pattern
from typing import Any
from urllib.parse import quote

import attrs

from imgload.core.errors import ArchiveInvalid, EngineError, EngineFailed
from imgload.engines.base import Chunk, Container, Engine, EventsOpened, ExecResult, ImageEvent
from imgload.engines.endpoint import Endpoint
from imgload.engines.exec_stream import Attached
from imgload.engines.http import STREAM_SECONDS, Answer, Request, SocketWire, Wire
from imgload.engines.temporary_tags import Leftover, is_ours, stale
from imgload.engines.translate import (
    WRONG_SHAPE,
    refuse_bad_answer,
    timed_out,
    translated,
    understood,
)
from imgload.oci.digest import Digest

NOT_FOUND = 404
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
_SETTLE_SECONDS = 10.0
_QUIET_SECONDS = 30.0
"""Without an event for this long, the stream is opened again: the connection may be dead."""
_SECOND = 10**9
_EARLIER = 10**6
"""Podman reads a time as a floating-point number, which rounds it by up to a microsecond."""


class RestEngine(Engine):
    """An engine that is spoken to over HTTP; both answer Docker's container requests."""

    @understood
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        with translated(endpoint, "connecting"):
            self._wire = open_wire(endpoint)

    @property
    @abstractmethod
    def root(self) -> str:
        """The path before every request's own."""

    def close(self) -> None:
        self._wire.close()

    def ask(self, method: str, path: str, doing: str, **options: Any) -> Answer:
        """Send a request and return the answer; an error in it is raised."""
        answer = self._send(method, path, **options)
        refuse_bad_answer(answer, self.endpoint, doing)
        return answer

    def document(self, method: str, path: str, doing: str, **options: Any) -> Any:
        """Return the JSON document that answers a request."""
        with translated(self.endpoint, doing), self.ask(method, path, doing, **options) as answer:
            return parsed(answer.read())

    def found(self, path: str, doing: str, **options: Any) -> Any:
        """Return the JSON document at a path, or None where there is nothing."""
        with translated(self.endpoint, doing), self._send("GET", path, **options) as answer:
            if answer.status == NOT_FOUND:
                return None
            refuse_bad_answer(answer, self.endpoint, doing)
            return parsed(answer.read())

    def _send(self, method: str, path: str, **options: Any) -> Answer:
        return self._wire.send(Request(method, f"{self.root}{quote(path, safe='/:@')}", **options))

    @understood
    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        params = {"filters": json.dumps({"reference": list(references)})} if references else {}
        found = self.document("GET", "/images/json", "listing images", params=params)
        return {
            name: Digest.from_engine_id(image.get("Id") or "")
            for image in found or ()
            for name in tags_of(image)
        }

    @understood
    def _layer_sizes(self, path: str) -> list[int]:
        """Return the bytes of the steps of a history that made a layer."""
        steps = self.document("GET", path, "reading an image's history")
        return [int(step["Size"]) for step in reversed(steps or ()) if step.get("Size")]

    def image_events(self, since: int | None) -> Iterator[EventsOpened | ImageEvent]:
        doing = "listening to its events"
        params = {"filters": json.dumps(self.event_filters)}
        if since is not None:
            seconds, rest = divmod(max(0, since - _EARLIER), _SECOND)
            params["since"] = f"{seconds}.{rest:09d}"
        with (
            translated(self.endpoint, doing),
            self.ask("GET", "/events", doing, params=params, seconds=_QUIET_SECONDS) as answer,
        ):
            yield EventsOpened(_engine_time(answer))
            yield from self._events_in(answer)

    def _events_in(self, answer: Answer) -> Iterator[ImageEvent]:
        """Yield the events of a stream, until it ends or none comes for too long."""
        try:
            for line in answer.lines():
                event = self._event(line) if line.strip() else None
                if event:
                    yield event
        except Exception as error:
            if not timed_out(error):
                raise

    def _event(self, line: bytes) -> ImageEvent | None:
        """Understand an event; an empty one if that fails, None if a push of ours caused it."""
        try:
            told = parsed(line)
            event = attrs.evolve(self.event(told), at=_event_time(told))
            return None if is_ours(event.name) else event
        except (*WRONG_SHAPE, EngineFailed):
            return ImageEvent()

    @property
    @abstractmethod
    def event_filters(self) -> Mapping[str, Sequence[str]]:
        """What of the engine's events is about images that are new or got a name."""

    @abstractmethod
    def event(self, told: dict[str, Any]) -> ImageEvent:
        """Understand an event; any error in it is caught."""

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        doing = f"running {argv[0]} in {container[:12]}"
        with translated(self.endpoint, doing):
            spec = {
                "Cmd": list(argv),
                "AttachStdin": stdin is not None,
                "AttachStdout": True,
                "AttachStderr": True,
                "Tty": False,
            }
            path = f"/containers/{container}/exec"
            exec_id = self._exec_id(self.document("POST", path, doing, json=spec))
            attached = self._start(exec_id, doing)
            try:
                complete = attached.communicate(stdin)
            finally:
                attached.close()
            status = self._exit_status(exec_id, complete=complete)
        return ExecResult(status, bytes(attached.stdout), bytes(attached.stderr), complete)

    @understood
    def _exec_id(self, created: Any) -> str:
        return text(created["Id"])

    def _start(self, exec_id: str, doing: str) -> Attached:
        answer = self.ask(
            "POST",
            f"/exec/{exec_id}/start",
            doing,
            json={"Detach": False, "Tty": False},
            headers=_UPGRADE,
        )
        return Attached.take_over(answer)

    def _exit_status(self, exec_id: str, *, complete: bool) -> int:
        """Return a command's exit status, once the engine says that it ended.

        Exit status 0 is not believed when not all input was sent: a dropped connection looks to
        the command like the end of its input.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (state := self._exec_state(exec_id)).get("Running") and time.monotonic() < deadline:
            time.sleep(0.01)
        status = state.get("ExitCode")
        if state.get("Running") or not isinstance(status, int):
            raise EngineFailed("the connection to a command broke while it was running")
        if status == 0 and not complete:
            raise EngineFailed("the connection to a command broke before all was sent")
        return status

    def _exec_state(self, exec_id: str) -> dict[str, Any]:
        state = self.document("GET", f"/exec/{exec_id}/json", "asking how a command ended")
        return state if isinstance(state, dict) else {}

    def put(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        doing = f"copying into {container[:12]}"
        with translated(self.endpoint, doing):
            self.ask(
                "PUT",
                f"/containers/{container}/archive",
                doing,
                params={"path": folder},
                stream=archive,
                seconds=STREAM_SECONDS,
            ).close()

    def _body(self, answer: Answer) -> Iterator[bytes]:
        """Yield a stream's chunks; one that is cut off raises EngineFailed."""
        with translated(self.endpoint, "reading the saved image"):
            yield from answer.chunks()

    @property
    @abstractmethod
    def temporary_names(self) -> Pattern[str]:
        """What the names look like that a run makes in the engine and takes away again."""

    @abstractmethod
    def remove_temporary(self, name: str, image: str) -> bool:
        """Take such a name away, and no image with it; return whether the engine had it.

        Args:
            name: as it was noted.
            image: the engine's ID of the image that got it; empty if that was not noted.

        """

    def tidy(self) -> None:
        for left in stale([self.endpoint.url], self.temporary_names):
            if left.here or self.endpoint.local:
                self._take_back(left)
            else:
                left.note.leave()

    def _take_back(self, left: Leftover) -> None:
        """Take a name away; where that fails, the next run does, and no load fails for it."""
        try:
            was_here = self.remove_temporary(left.name, left.image)
        except EngineError:
            left.note.leave()
        else:
            if was_here or left.here:
                left.note.remove()
            else:
                left.note.leave()

    def _until_pushed(self, answer: Answer) -> None:
        """Read a push's progress to its end; an error is among its lines."""
        for line in answer.lines():
            event = parsed(line) if line.startswith(b"{") else {}
            if event.get("error"):
                raise EngineFailed(f"{self.endpoint}: pushing failed: {event['error']}")


def tags_of(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return an image's names, without those that a push of ours, or of another run, needs."""
    return tuple(name for name in found.get("RepoTags") or () if not is_ours(name))


def text(value: Any) -> str:
    """Return a string of an answer; TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a string")
    return value


def read_container(found: Mapping[str, Any], name: Any, state: Any, labels: Any) -> Container:
    """Return a container out of an answer."""
    pairs = dict(labels or {}).items()
    by_key = {key: text(value) for key, value in pairs}
    return Container(text(found["Id"]), text(name).lstrip("/"), text(state), by_key)


def open_wire(endpoint: Endpoint) -> Wire:
    """Return the way to an engine."""
    if endpoint.version and not endpoint.url.startswith("ssh://"):
        return SocketWire(endpoint, endpoint.version)
    from imgload.engines.sdk import SdkWire  # noqa: PLC0415 - start-up

    return SdkWire(endpoint)


def _event_time(told: Mapping[str, Any]) -> int | None:
    at = told.get("timeNano")
    return at if isinstance(at, int) and at > 0 else None


def _engine_time(answer: Answer) -> int | None:
    """Return the time in an answer's headers, in nanoseconds; None if it has none."""
    try:
        return int(parsedate_to_datetime(answer.date).timestamp()) * _SECOND
    except (ValueError, TypeError, OverflowError):
        return None


def parsed(data: bytes) -> Any:
    """Return a JSON document; EngineFailed for anything else."""
    from imgload.oci.jsontext import load_json  # noqa: PLC0415 - start-up

    try:
        return load_json(data, most=None)  # an engine may have very many images
    except ValueError as error:
        raise EngineFailed(f"the engine's answer is not valid JSON: {error}") from error


def image_digest(text: str) -> Digest | None:
    """Return the digest that an engine's image ID is, or None for any other text."""
    try:
        return Digest.from_engine_id(text)
    except ArchiveInvalid:
        return None
