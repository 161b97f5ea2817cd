"""Check which engines answer, and why the others do not."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping

from imgload.core.errors import EngineError, EngineNotPermitted, ImgloadError, UsageError
from imgload.engines.base import About
from imgload.engines.discovery.attempt import Attempt
from imgload.engines.discovery.discover import Discovery, discover
from imgload.engines.discovery.hints import health
from imgload.engines.endpoint import Endpoint
from imgload.tools.doctor.finding import Finding, Status

SECONDS = 2.0
"""Time limit for an engine to describe itself."""
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
            if variable in _ADDRESSES:
                is_path = (value or "").startswith("/")
                fix = f"export {variable}={shlex.quote(f'unix://{value}')}" if is_path else hint
                hint = f"{fix}; or unset {variable}"
            findings.append(Finding("engines", "problem", error.message, hint))
            if value is None:
                return Discovery(()), findings


def check_engines(
    discovery: Discovery, abouts: Mapping[Endpoint, About | ImgloadError]
) -> Iterator[Finding]:
    """Yield a finding for each candidate address.

    Args:
        discovery: the attempted candidates.
        abouts: how each engine that answers describes itself.

    """
    for attempt in discovery.attempts:
        candidate, endpoint = attempt.candidate, attempt.endpoint
        if attempt.error and not attempt.passed_over:
            status = _severity(attempt, alone=not discovery.endpoints)
            yield Finding.of("engines", attempt.error, status)
        elif attempt.passed_over and endpoint:
            what = f"{candidate} answers but is not used: {attempt.passed_over}"
            yield Finding("engines", "info", what, candidate.take)
        elif attempt.same_as:
            what = f"{candidate} is the same engine as {attempt.same_as}"
            yield Finding("engines", "info", what)
        elif attempt.used and endpoint:
            yield _engine(attempt, endpoint, abouts.get(endpoint) or About())
            yield from _other_kind(attempt, endpoint)
    if not discovery.endpoints and not discovery.errors:
        try:
            discovery.require()
        except EngineError as error:
            what = error.message.partition("\n")[0]
            yield Finding("engines", "problem", what, error.hint)


def _severity(attempt: Attempt, *, alone: bool) -> Status:
    if attempt.candidate.chosen or alone:
        return "problem"
    return "warning" if isinstance(attempt.error, EngineNotPermitted) else "info"


def _engine(attempt: Attempt, endpoint: Endpoint, about: About | ImgloadError) -> Finding:
    where = f"{endpoint.url} (from {attempt.candidate.origin})"
    if isinstance(about, ImgloadError):
        what = f"{endpoint.kind} at {where} does not report its version: {about.message}"
        return Finding("engines", "problem", what, about.hint or health(endpoint.kind))
    traits = [about.store, "rootless" if about.rootless else "", str(about.platform or "")]
    listed = ", ".join(filter(None, traits))
    return Finding("engines", "ok", f"{endpoint.kind} {about.version} at {where}: {listed}")


def _other_kind(attempt: Attempt, endpoint: Endpoint) -> Iterator[Finding]:
    """Docker's clients can use Podman's socket; Podman's cannot use Docker's."""
    candidate = attempt.candidate
    if not candidate.chosen or candidate.kind == endpoint.kind:
        return
    if endpoint.kind == "docker":
        what = f"{candidate.origin} leads to Docker, which the podman CLI cannot use"
        yield Finding("engines", "warning", what, candidate.undo)
    else:
        what = f"{candidate.origin} leads to Podman, which the docker CLI can use"
        yield Finding("engines", "info", what)
