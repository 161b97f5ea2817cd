"""Which engines answer, what they are, and what is in the way of the others."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping

from imgload.core.errors import EngineError, EngineNotPermitted, ImgloadError, UsageError
from imgload.engines.base import About
from imgload.engines.discovery.attempt import Attempt
from imgload.engines.discovery.discover import Discovery, discover
from imgload.engines.discovery.explain import health
from imgload.engines.endpoint import Endpoint
from imgload.tools.doctor.finding import Finding, Status

SECONDS = 2.0
"""For an engine to say what it is."""
_VARIABLES = ("DOCKER_HOST", "CONTAINER_HOST")
_NAMING = ("DOCKER_CONTEXT", "CONTAINER_CONNECTION")
"""Variables with the name of an address."""


def find_engines(environ: Mapping[str, str] | None = None) -> tuple[Discovery, list[Finding]]:
    """Ask every place, and all but a variable that holds no address."""
    variables = dict(os.environ if environ is None else environ)
    found: list[Finding] = []
    while True:
        try:
            return discover(variables), found
        except UsageError as error:
            found.append(_no_address(error))
            origin = error.message.partition(":")[0].partition("=")[0]
            wrong = [v for v in (*_VARIABLES, *_NAMING) if v == origin and v in variables]
            if not wrong:
                return Discovery(()), found
            del variables[wrong[0]]


def _no_address(error: UsageError) -> Finding:
    origin = error.message.partition(":")[0]
    if origin not in _VARIABLES:
        return Finding.of("engines", error)
    path = os.environ.get(origin, "")
    meant = (
        f"export {origin}={shlex.quote(f'unix://{path}')}" if path.startswith("/") else error.hint
    )
    return Finding("engines", "problem", error.message, f"{meant}; or unset {origin}")


def check_engines(
    found: Discovery, told: Mapping[Endpoint, About | ImgloadError]
) -> Iterator[Finding]:
    """Yield a finding for each place.

    Args:
        found: what was tried.
        told: what the engines that answer say of themselves.

    """
    for attempt in found.attempts:
        yield from _attempt(attempt, told, alone=not found.endpoints)
    if not found.endpoints and not found.errors:
        yield from _none(found)


def _attempt(
    attempt: Attempt, told: Mapping[Endpoint, About | ImgloadError], *, alone: bool
) -> Iterator[Finding]:
    if attempt.error and not attempt.passed_over:
        yield Finding.of("engines", attempt.error, _weight(attempt, alone=alone))
    elif attempt.passed_over and attempt.endpoint:
        what = f"{attempt.candidate} answers, and is not asked: {attempt.passed_over}"
        yield Finding("engines", "info", what, attempt.candidate.take)
    elif attempt.same_as:
        what = f"{attempt.candidate} is the same engine as {attempt.same_as}"
        yield Finding("engines", "info", what)
    elif attempt.used and attempt.endpoint:
        yield _engine(attempt, attempt.endpoint, told.get(attempt.endpoint))
        yield from _other_kind(attempt, attempt.endpoint)


def _weight(attempt: Attempt, *, alone: bool) -> Status:
    if attempt.candidate.chosen or alone:
        return "problem"
    return "warning" if isinstance(attempt.error, EngineNotPermitted) else "info"


def _engine(attempt: Attempt, endpoint: Endpoint, told: About | ImgloadError | None) -> Finding:
    where = f"{endpoint.url} (from {attempt.candidate.origin})"
    if isinstance(told, ImgloadError):
        what = f"{endpoint.kind} at {where} does not say what it is: {told.message}"
        return Finding("engines", "problem", what, told.hint or health(endpoint.kind))
    about = told or About()
    traits = [about.store, "rootless" if about.rootless else "", str(about.platform or "")]
    listed = ", ".join(filter(None, traits))
    return Finding("engines", "ok", f"{endpoint.kind} {about.version} at {where}: {listed}")


def _other_kind(attempt: Attempt, endpoint: Endpoint) -> Iterator[Finding]:
    """Docker's programs speak to Podman's socket; Podman's do not speak to Docker's."""
    if attempt.candidate.chosen and attempt.candidate.kind != endpoint.kind:
        origin = attempt.candidate.origin
        if endpoint.kind == "docker":
            what = f"{origin} leads to Docker, which the podman program cannot speak to"
            yield Finding("engines", "warning", what, attempt.candidate.undo)
        else:
            what = f"{origin} leads to Podman, which the docker program can speak to"
            yield Finding("engines", "info", what)


def _none(found: Discovery) -> Iterator[Finding]:
    try:
        found.require()
    except EngineError as error:
        what = error.message.partition("\n")[0]
        yield Finding("engines", "problem", what, error.hint)
