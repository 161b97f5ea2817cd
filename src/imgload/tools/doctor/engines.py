"""Check which engines answer, and which can push to this process, as the delta transport needs."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from imgload.core.errors import EngineFailed, EngineNotPermitted, ImgloadError, UsageError
from imgload.core.parallel import Task, call_each
from imgload.core.state import state_folder
from imgload.engines.base import Engine, EngineDescription
from imgload.engines.cache import EngineCache
from imgload.engines.causes import hint_for
from imgload.engines.discovery.candidates import Attempt
from imgload.engines.discovery.discover import Discovery, discover
from imgload.engines.discovery.probe import no_engine_error
from imgload.engines.endpoint import Endpoint
from imgload.registry.server import receiving
from imgload.registry.sink import ManifestSink
from imgload.tools.doctor.finding import Finding, Status

SECONDS = 2.0
"""Time limit for an engine to describe itself."""
_PUSH_SECONDS = 3.0
_ADDRESSES = {"DOCKER_HOST", "CONTAINER_HOST"}
_VARIABLES = _ADDRESSES | {"DOCKER_CONTEXT", "CONTAINER_CONNECTION"}


def find_engines(environ: Mapping[str, str] | None = None) -> tuple[Discovery, list[Finding]]:
    """Discover the engines; each variable with an invalid address is a finding, and is ignored."""
    variables = dict(os.environ if environ is None else environ)
    findings: list[Finding] = []
    while True:
        try:
            return discover(variables), findings
        except UsageError as error:
            variable = re.split("[:=]", error.message, maxsplit=1)[0]
            value = variables.pop(variable, None) if variable in _VARIABLES else None
            hint = error.hint
            if value and value.startswith("/") and variable in _ADDRESSES:
                hint = f"export {variable}={shlex.quote(f'unix://{value}')}"
            hint += f"; or unset {variable}" if variable in _ADDRESSES else ""
            findings.append(Finding("engines", "problem", error.message, hint))
            if value is None:
                return Discovery(()), findings


def check_engines(
    discovery: Discovery, abouts: Mapping[Endpoint, EngineDescription | ImgloadError]
) -> Iterator[Finding]:
    """Yield a finding for each candidate address; `abouts` describe the engines that answer."""
    for attempt in discovery.attempts:
        candidate, endpoint = attempt.candidate, attempt.endpoint
        if attempt.error and not attempt.skip_reason:
            mild: Status = "warning" if isinstance(attempt.error, EngineNotPermitted) else "info"
            is_needed = candidate.chosen or not discovery.endpoints
            yield Finding.of("engines", attempt.error, "problem" if is_needed else mild)
        elif attempt.skip_reason and endpoint:
            what = f"{candidate} answers but is not used: {attempt.skip_reason}"
            yield Finding("engines", "info", what, candidate.take)
        elif attempt.same_as:
            yield Finding("engines", "info", f"{candidate} is the same engine as {attempt.same_as}")
        elif attempt.used and endpoint:
            yield from _engine(attempt, endpoint, abouts.get(endpoint) or EngineDescription())
    if not discovery.endpoints and not discovery.errors:
        error = no_engine_error(discovery.attempts, discovery.absent)
        yield Finding("engines", "problem", error.message.partition("\n")[0], error.hint)


def _engine(
    attempt: Attempt, endpoint: Endpoint, about: EngineDescription | ImgloadError
) -> Iterator[Finding]:
    candidate = attempt.candidate
    where = f"{endpoint.url} (from {candidate.origin})"
    if isinstance(about, ImgloadError):
        what = f"{endpoint.kind} at {where} does not report its version: {about.message}"
        yield Finding(
            "engines", "problem", what, about.hint or hint_for(about.message, endpoint.kind)
        )
    else:
        traits = [about.store, "rootless" if about.rootless else "", str(about.platform or "")]
        listed = ", ".join(filter(None, traits))
        yield Finding("engines", "ok", f"{endpoint.kind} {about.version} at {where}: {listed}")
    if candidate.chosen and (candidate.kind, endpoint.kind) == ("podman", "docker"):
        what = f"{candidate.origin} leads to Docker, which the podman CLI cannot use"
        yield Finding("engines", "warning", what, candidate.undo)
    elif candidate.chosen and candidate.kind != endpoint.kind:
        what = f"{candidate.origin} leads to Podman, which the docker CLI can use"
        yield Finding("engines", "info", what)


def check_receivers(engines: Sequence[Engine]) -> Iterator[Finding]:
    """Yield for each engine whether it can push to this process.

    An engine on this machine looks up an image in a registry of this process: it stores nothing.
    """
    for engine, reached in call_each(_reaches_us, engines, _PUSH_SECONDS + 1):
        endpoint = engine.endpoint
        if isinstance(reached, ImgloadError):
            yield Finding.of("receiver", reached, "info")
        elif not endpoint.local:
            what = f"{endpoint} is on another machine and cannot push here: images are saved whole"
            yield Finding("receiver", "info", what)
        elif not reached:
            what = f"{endpoint} cannot reach this process (does it run in a VM?)"
            yield Finding("receiver", "info", f"{what}: images are saved whole, which is slower")
        else:
            yield Finding("receiver", "ok", f"{endpoint} can push here: only missing layers move")
            if EngineCache.load().is_unreachable(endpoint.url):
                what = f"{endpoint} could not push here within the last day: images are saved whole"
                cache = shlex.quote(str(state_folder() / "engines.json"))
                yield Finding("receiver", "info", what, f"to clear this cache: rm {cache}")


def _reaches_us(engine: Engine) -> bool:
    if not engine.endpoint.local:
        return False
    reached = threading.Event()
    with receiving(ManifestSink(), reached=reached.set) as repository:
        task = Task(partial(engine.look_up, repository))
        task.wait_at_most(_PUSH_SECONDS)
    if not reached.is_set() and not task.done:
        raise EngineFailed(f"{engine.endpoint} takes too long to look up an image in a registry")
    return reached.is_set()
