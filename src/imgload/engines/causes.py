"""Causes of an engine's errors, and the hint for each, which was tried with the real engine."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from imgload.engines.endpoint import HostKind


@attrs.frozen
class Cause:
    """A cause of an error; the hint is a format string, of an engine with the field ``kind``.

    If `final`, the engine can neither save nor push the image.
    """

    pattern: str
    hint: str
    final: bool = False


_ACCEPT = '[{{"type":"insecureAcceptAnything"}}]'
_CAUSES = (
    Cause(
        r"policy\.json: no such file|no policy\.json file found",
        "create the signature policy that Podman's packages contain: echo"
        f" '{{{{\"default\":{_ACCEPT}}}}}' | sudo tee /etc/containers/policy.json",
        final=True,
    ),
    Cause(
        r"invalid policy in ",
        "correct the signature policy, or remove it if another one exists"
        " (/etc/containers/policy.json, ~/.config/containers/policy.json)",
        final=True,
    ),
    Cause(
        r"is rejected by policy",
        "let Podman read its own store: add"
        f' "containers-storage": {{{{"": {_ACCEPT}}}}} to "transports" in its policy.json'
        " (/etc/containers or ~/.config/containers)",
        final=True,
    ),
    Cause(
        # containers-storage and moby reassemble a layer from its files (podman #25270)
        r"write too long|could not verify layer data|Digest did not match, expected",
        "{kind} cannot reassemble a layer, for example one with sparse files: load the archive that"
        " the image came from (imgload load IMAGE --from FILE), or build the image again without"
        " sparse files (tar --sparse) in its layers",
        final=True,
    ),
    Cause(
        # an OCI manifest with Docker's media types for layers, in Podman's store; 4.3 can save it
        r"unsupported MIME type for decompression",
        "{kind} cannot export an OCI manifest with Docker's media types: load the archive that the"
        " image came from (imgload load IMAGE --from FILE)",
        final=True,
    ),
    Cause(
        r"no space left on device",
        "free disk space of the engine: {kind} system df, then {kind} system prune",
    ),
)


def cause_of(message: str, causes: Sequence[Cause] = _CAUSES) -> Cause | None:
    """Return the cause of an error, by default of an engine's."""
    return next((cause for cause in causes if re.search(cause.pattern, message)), None)


def hint_for(message: str, kind: HostKind) -> str:
    """Return the next step after an engine's error; the engine's state if the cause is unknown."""
    cause = cause_of(message)
    return cause.hint.format(kind=kind) if cause else f"check the engine: {kind} info"


def refused_request(request: str) -> str:
    """Return the hint for a request that a proxy or an authorization plugin refuses."""
    return f"allow {request} in the proxy or plugin in front of the engine; or use its own socket"
