"""The common part of the engines' HTTP APIs: images, events, containers and exec."""

from __future__ import annotations

import json
import re
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from re import Pattern
from typing import Any, ClassVar
from urllib.parse import quote

import attrs

from imgload.core.errors import EngineError, EngineFailed
from imgload.engines.base import (
    Chunk,
    Container,
    Engine,
    EngineImage,
    EventsOpened,
    ExecResult,
    ImageEvent,
)
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.engines.exec_stream import ExecStream
from imgload.engines.http import (
    STREAM_SECONDS,
    WRONG_SHAPE,
    Answer,
    Params,
    Request,
    Wire,
    checked,
    failed,
    map_errors,
    save_seconds,
    status_error,
    timed_out,
)
from imgload.engines.temporary_tags import Note, is_temporary_tag, stale_names
from imgload.oci.digest import Digest
from imgload.oci.document import dig, load_json
from imgload.oci.platform import Platform

_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
_SETTLE_SECONDS = 10.0
_QUIET_SECONDS = 30.0
"""Without an event for this long, the stream is opened again: the connection may be dead."""
_UNICAST = re.compile(r"(?!0|127\.|22[4-9]|2[3-9]\d)\d{1,3}(?:\.\d{1,3}){3}", re.ASCII)
_SECOND = 10**9
_MARGIN = 10**6
"""Podman parses a time as a floating-point number, which rounds it by up to a microsecond."""


class RestEngine(Engine):
    """An engine with an HTTP API; both engines support Docker's container requests."""

    kind: ClassVar[EngineKind]
    api: ClassVar[str]  # the path of the API below its version
    save_path: ClassVar[str]
    event_filters: ClassVar[Mapping[str, Sequence[str]]]  # of new or tagged images
    temporary_names: ClassVar[Pattern[str]]  # that a push creates in the engine

    def __init__(self, client: Any = None) -> None:
        if client is None:
            from imgload.engines.discovery.probe import first_endpoint  # noqa: PLC0415 - start-up

            client = first_endpoint(self.kind)
        if isinstance(client, Endpoint):
            self._wire = Wire(client)
        else:
            from imgload.engines.sdk import open_client  # noqa: PLC0415 - start-up

            self._wire = open_client(client, self.kind)
        self.endpoint = self._wire.endpoint
        self._upgrades = True

    def close(self) -> None:
        self._wire.close()

    def send(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        absent_ok: bool = False,
        api: str | None = None,
        **options: Any,
    ) -> Answer:
        """Send a request; EngineFailed if the answer is an error, except "not found" on request."""
        api = self.api if api is None else api
        path = f"/v{self.endpoint.version}{api}{quote(path, safe='/:@')}"
        with map_errors(self.endpoint, doing):
            answer = self._wire.send(Request(method, path, **options))
            is_absent = absent_ok and answer.status == HTTPStatus.NOT_FOUND
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES and not is_absent:
                with answer:
                    raise self._status_error(answer, answer.read(), doing)
            return answer

    def _status_error(self, answer: Answer, body: bytes, doing: str) -> EngineFailed:
        return status_error(answer.status, body, self.endpoint, doing, answer.request)

    @contextmanager
    def request(self, method: str, path: str, doing: str, **options: Any) -> Iterator[Answer]:
        """Yield the answer of `send`; errors while it is read are mapped as well."""
        with map_errors(self.endpoint, doing), self.send(method, path, doing, **options) as answer:
            yield answer

    def document(self, method: str, path: str, doing: str, **options: Any) -> Any:
        """Return the JSON document of an answer, or None if `absent_ok` and "not found"."""
        with self.request(method, path, doing, **options) as answer:
            data = answer.read()
            if answer.status != HTTPStatus.NOT_FOUND:
                return parse_json(data)
            if not data.lstrip().startswith(b"{"):  # of a proxy
                raise self._status_error(answer, data, doing)
            return None

    @checked
    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        params = {"filters": json.dumps({"reference": list(references)})} if references else {}
        images = self.document("GET", "/images/json", "listing images", params=params)
        return {
            name: Digest.from_engine_id(image.get("Id") or "")
            for image in images or ()
            for name in tags_of(image)
        }

    @checked
    def _layer_sizes(self, image: str) -> list[int]:
        doing = "reading an image's history"
        steps = self.document("GET", f"/images/{image}/history", doing)
        return [int(step["Size"]) for step in reversed(steps or ()) if step.get("Size")]

    @contextmanager
    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> Iterator[Iterator[bytes]]:
        with self._send_save(images, platform, save_seconds(size)) as answer:
            yield self._body(answer)

    def _send_save(
        self, images: Sequence[str], platform: Platform | None, seconds: float
    ) -> Answer:
        doing = f"saving {', '.join(images)}"
        *preferred, last = self.save_params(images, platform)
        for params in preferred:
            with suppress(EngineFailed):
                return self.send("GET", self.save_path, doing, params=params, seconds=seconds)
        return self.send("GET", self.save_path, doing, params=last, seconds=seconds)

    @abstractmethod
    def save_params(self, images: Sequence[str], platform: Platform | None) -> Sequence[Params]:
        """Return the parameters of the request for a save, in order of preference."""

    def _body(self, answer: Answer) -> Iterator[bytes]:
        with map_errors(self.endpoint, "reading the saved image"):
            yield from answer.chunks()

    def load(self, archive: Iterable[Chunk]) -> None:
        options = {"stream": archive, "seconds": STREAM_SECONDS, "params": {"quiet": "1"}}
        self._follow("/images/load", "storing an image", api="", **options)

    def _follow(self, path: str, doing: str, **options: Any) -> None:
        """Send a request and read its progress to the end; an error is one of the lines."""
        with self.request("POST", path, doing, **options) as answer:
            for line in answer.lines():
                event = parse_json(line) if line.startswith(b"{") else {}
                if event.get("error"):
                    raise failed(self.endpoint, f"{doing} failed: {event['error']}")

    def image_events(self, since: int | None) -> Iterator[EventsOpened | ImageEvent]:
        params, opened = {"filters": json.dumps(self.event_filters)}, None
        if since is not None:
            seconds, rest = divmod(max(0, since - _MARGIN), _SECOND)
            params["since"] = f"{seconds}.{rest:09d}"
        options = {"params": params, "seconds": _QUIET_SECONDS}
        with self.request("GET", "/events", "listening to its events", **options) as answer:
            with suppress(ValueError, TypeError, OverflowError):
                date = parsedate_to_datetime(answer.headers.get("Date", ""))
                opened = int(date.timestamp()) * _SECOND
            yield EventsOpened(opened)
            try:
                events = (self._parse_event(line) for line in answer.lines() if line.strip())
                yield from filter(None, events)
            except Exception as error:
                if not timed_out(error):
                    raise

    def _parse_event(self, line: bytes) -> ImageEvent | None:
        """Return an event, an empty one if its line is invalid; None for one of our own pushes."""
        try:
            document = parse_json(line)
            at = document.get("timeNano")
            at = at if isinstance(at, int) and at > 0 else None
            event = attrs.evolve(self.event(document), at=at)
            return None if is_temporary_tag(event.name) else event
        except (*WRONG_SHAPE, EngineFailed):
            return ImageEvent()

    @abstractmethod
    def event(self, document: dict[str, Any]) -> ImageEvent:
        """Parse an event; it may raise any of WRONG_SHAPE."""

    @checked
    def containers(self, label: str) -> list[Container]:
        filters = {"label": [label]} if label else {}
        params = {"all": "true", "filters": json.dumps(filters)}
        options: dict[str, Any] = {"params": params, "api": ""}  # libpod's list lacks gateways
        documents = self.document("GET", "/containers/json", "listing containers", **options)
        return [
            _container(c, c["Names"][0], c["State"], c.get("Labels"))
            for c in documents or ()
            if c.get("Names")
        ]

    @checked
    def container(self, name: str) -> Container | None:
        doing = f"inspecting the container {name}"
        document = self.document("GET", f"/containers/{name}/json", doing, absent_ok=True)
        if document is None:
            return None
        state, labels = document["State"]["Status"], document["Config"].get("Labels")
        return _container(document, document["Name"], state, labels)

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        doing = f"running {argv[0]} in {container[:12]}"
        # always with input: some proxies drop the output of a command without it
        exec_id = self._create_exec(container, doing, Cmd=[*argv], AttachStdin=True)
        start = {"json": {"Detach": False, "Tty": False}, "headers": _UPGRADE}
        with self.request("POST", f"/exec/{exec_id}/start", doing, **start) as answer:
            self._upgrades = answer.upgraded
            stream = ExecStream.take_over(answer)
            try:
                complete = stream.communicate(stdin)
            finally:
                stream.close()
        status = self._exit_status(exec_id, complete=complete)
        return ExecResult(status, bytes(stream.stdout), bytes(stream.stderr), complete)

    def _info(self) -> Any:
        return self.document("GET", "/info", "reading the engine's information")

    @checked
    def _create_exec(self, /, container: str, doing: str, **spec: Any) -> str:
        spec |= {"AttachStdout": True, "AttachStderr": True, "Tty": False}
        created = self.document("POST", f"/containers/{container}/exec", doing, json=spec)
        return _text(created["Id"])

    def _exit_status(self, exec_id: str, *, complete: bool) -> int:
        """Return a command's exit status once the engine reports its end.

        Exit status 0 is not trusted if not all input was sent: a command cannot distinguish a
        dropped connection from the end of its input.
        """
        path, doing = f"/exec/{exec_id}/json", "reading a command's exit status"
        deadline = time.monotonic() + _SETTLE_SECONDS
        state = self.document("GET", path, doing)
        while dig(state, "Running") and time.monotonic() < deadline:
            time.sleep(0.01)
            state = self.document("GET", path, doing)
        status = dig(state, "ExitCode")
        if dig(state, "Running") or not isinstance(status, int):
            raise EngineFailed("the connection to a command broke while it was running")
        if status == 0 and not complete:
            raise EngineFailed("the connection to a command broke before all was sent")
        return status

    @property
    def streams_exec(self) -> bool:
        return super().streams_exec and self._upgrades

    def put_archive(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        path, doing = f"/containers/{container}/archive", f"copying into {container[:12]}"
        options = {"params": {"path": folder}, "stream": archive, "seconds": STREAM_SECONDS}
        with self.request("PUT", path, doing, **options):
            pass

    @abstractmethod
    def remove_temporary(self, name: str, image: str) -> bool:
        """Remove a temporary name but no image; return whether the engine had it.

        `image` is the engine's own ID of the image that got the name; empty if not noted.
        """

    def tidy(self) -> None:
        for note in stale_names([self.endpoint.url], self.temporary_names):
            if note.here or self.endpoint.local:
                self._remove_noted(note)
            else:
                note.release()

    def _remove_noted(self, note: Note) -> None:
        """Remove a temporary name; no load fails if that fails, and the next run tries again."""
        try:
            done = self.remove_temporary(note.name, note.image) or note.here
        except EngineError:
            done = False
        if done:
            note.remove()
        else:
            note.release()


def tags_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in document.get("RepoTags") or () if not is_temporary_tag(name))


def repositories_of(document: Mapping[str, Any]) -> Counter[str]:
    """Return the repositories of an image's manifests, with the number of digests in each."""
    return Counter(name.partition("@")[0] for name in document.get("RepoDigests") or ())


def read_image(document: Mapping[str, Any]) -> EngineImage:
    """Return an image whose ID in the engine is its image ID."""
    image_id = Digest.from_engine_id(document["Id"])
    os, architecture, variant = map(document.get, ("Os", "Architecture", "Variant"))
    return EngineImage(
        target=image_id,
        image_id=image_id,
        names=tags_of(document),
        platform=Platform.of(os or "linux", architecture or "", variant or ""),
        diff_ids=tuple(map(Digest.parse, (document.get("RootFS") or {}).get("Layers") or ())),
        size=int(document.get("Size") or 0),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a string")
    return value


def _container(document: Mapping[str, Any], name: Any, state: Any, labels: Any) -> Container:
    by_key = {key: _text(value) for key, value in dict(labels or {}).items()}
    networks = dig(document, "NetworkSettings", "Networks")
    gateways = [dig(n, "Gateway") for n in networks.values()] if isinstance(networks, dict) else []
    addresses = tuple(g for g in gateways if isinstance(g, str) and _UNICAST.fullmatch(g))
    return Container(
        _text(document["Id"]), _text(name).lstrip("/"), _text(state), by_key, addresses
    )


def parse_json(data: bytes) -> Any:
    """Parse a JSON document of an engine; EngineFailed if it is invalid."""
    try:
        return load_json(data, most=None)  # an engine may have very many images
    except ValueError as error:
        raise EngineFailed(f"the engine's answer is not valid JSON: {error}") from error


def image_digest(engine_id: str) -> Digest | None:
    """Return the digest of an engine's image ID, or None for any other text."""
    return Digest.try_parse(engine_id if ":" in engine_id else f"sha256:{engine_id}")
