"""Every exception that imgload raises, with one root class; each carries a hint for the user.

::

    ImgloadError                 exit status 1
    ├── UsageError               2
    │   └── ReferenceInvalid
    ├── ImageError               3
    │   ├── ImageNotFound
    │   └── ImageAmbiguous
    ├── ClusterError             4
    │   ├── ClusterNotFound
    │   ├── ClusterAmbiguous
    │   └── NodeNotFound
    ├── EngineError              5
    │   ├── EngineUnreachable
    │   ├── EngineNotPermitted
    │   └── EngineFailed
    ├── SourceError              6
    │   ├── ArchiveInvalid
    │   ├── DigestMismatch
    │   ├── ManifestMissing
    │   ├── PlatformMissing
    │   ├── ImageIncomplete
    │   └── NotAnImage
    ├── BuildFailed              1   the builder printed the reason
    ├── RegistryError            5   does not answer, or refuses
    ├── NodeError                1   one node; the other nodes go on
    │   ├── NodeNotRunning
    │   ├── NodeUnusable
    │   ├── NodeFull
    │   ├── NodeStalled
    │   ├── ImportFailed
    │   ├── NotVerified
    │   └── NotRemoved
    ├── LoadFailed               1   carries the report
    ├── RestartFailed            1   carries the report of a successful load
    └── PruneFailed              1   carries the report
"""

from __future__ import annotations

import copyreg
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_MAX_LENGTH = 2000


def visible(text: str) -> str:
    """Replace every control character of a text except line ends."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def printable(text: str) -> str:
    """Make untrusted text safe for a terminal, and limit its length."""
    shown = visible(text)
    return shown if len(shown) <= _MAX_LENGTH else f"{shown[:_MAX_LENGTH]}…"


def one_line(text: str) -> str:
    """Make untrusted text safe for one line of a terminal."""
    return printable(text).replace("\n", "\N{REPLACEMENT CHARACTER}")


_WARNING = re.compile(
    r"time=\S+ level=(?:trace|debug|info|warn(?:ing)?)\b|"
    r"(?:TRAC|DEBU|INFO|WARN)\[|[IW]\d{4} \d\d:|"
    r"(?:\*\* )?(?:warning|deprecated|deprecation)\b|\*\* ",
    re.IGNORECASE,
)
"""How a warning of containerd, podman, crictl, kubectl or ssh begins, by logger: logrus with and
without a terminal, klog, plain text."""
_LOGGED = re.compile(r'time=\S+ level=\w+ msg="((?:[^"\\]|\\.)*)"(?: error="((?:[^"\\]|\\.)*)")?')
_MILD = {"trace", "debug", "info", "warn", "warning"}


def reason(text: str) -> str:
    """Return a failed program's stderr without warnings; empty if it has only warnings.

    Newer programs print warnings first, such as the deprecations of containerd 2.2.
    """
    lines = [line for line in text.splitlines() if not _WARNING.match(line.lstrip())]
    return "\n".join(line for line in map(_log_message, lines) if line is not None).strip()


def _log_message(line: str) -> str | None:
    """Return the message of a log line (logrus, slog), None for a warning; other lines as is."""
    parts: Sequence[object]
    if logged := _LOGGED.match(line):
        parts = logged.groups()
    elif line.lstrip().startswith("{"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return line
        if "level" not in entry or not isinstance(entry.get("msg"), str):
            return line
        if str(entry["level"]).lower() in _MILD:
            return None
        parts = entry["msg"], entry.get("error")
    else:
        return line
    return ": ".join(str(part).replace('\\"', '"') for part in parts if part)


class ImgloadError(Exception):
    """The root of all errors of imgload; can be pickled.

    Args:
        message: one or two lines: the failed action, its object, and the reason.
        hint: the next step, preferably a command; may be empty.
        node: the node's name, if one node failed.
        endpoint: the engine's URL, if an engine failed or was not reached.
        image: the image's name or ID as the caller wrote it, if the error is about one image.

    """

    exit_status: int = 1

    def __init__(
        self, message: str, *, hint: str = "", node: str = "", endpoint: str = "", image: str = ""
    ) -> None:
        self.message = printable(message)
        self.hint = one_line(hint)
        self.node = printable(node)
        self.endpoint = printable(endpoint)
        self.image = printable(image)
        super().__init__(self.message)
        self.show_hints([self.hint])

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args`, which lacks the keyword arguments.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def show_hints(self, hints: Iterable[str]) -> None:
        """Add hints to the traceback, each once."""
        for hint in dict.fromkeys(filter(None, hints)):
            self.add_note(f"try: {hint}")

    @property
    def kind(self) -> str:
        """The class name in kebab case, for JSON: ``image-not-found`` for ImageNotFound."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()


class UsageError(ImgloadError):
    """The arguments are invalid or contradict each other."""

    exit_status = 2


class ReferenceInvalid(UsageError):
    """Kubernetes would not accept the image name."""


class ImageError(ImgloadError):
    """The requested image cannot be determined."""

    exit_status = 3


class ImageNotFound(ImageError):
    """No source has the image."""


class ImageAmbiguous(ImageError):
    """Two sources have different images with the same name."""


class ClusterError(ImgloadError):
    """The requested cluster or node cannot be determined."""

    exit_status = 4


class ClusterNotFound(ClusterError):
    """No reachable engine runs the cluster."""


class ClusterAmbiguous(ClusterError):
    """Several clusters match, and the caller named none."""


class NodeNotFound(ClusterError):
    """The cluster does not have the node."""


class EngineError(ImgloadError):
    """A container engine cannot be used, or failed."""

    exit_status = 5


class EngineUnreachable(EngineError):
    """No engine answers at the address."""


class EngineNotPermitted(EngineError):
    """The user lacks permission to connect to the engine."""


class EngineFailed(EngineError):
    """The engine answered with an error, or stopped in the middle of an answer.

    `refused` is true if the engine works and refused the request: another request may succeed.
    `final` is true if the engine can neither save nor push the image. `request` is the method and
    path that a proxy in front of the engine refused; empty otherwise.
    """

    def __init__(
        self,
        message: str,
        *,
        refused: bool = False,
        final: bool = False,
        request: str = "",
        **data: str,
    ) -> None:
        super().__init__(message, **data)
        self.refused = refused
        self.final = final
        self.request = printable(request)


class SourceError(ImgloadError):
    """The source did not provide a usable image."""

    exit_status = 6


class ArchiveInvalid(SourceError):
    """The archive is truncated, inconsistent, too large, or not an image archive."""


class DigestMismatch(SourceError):
    """Content does not match its digest."""


class ManifestMissing(SourceError):
    """The source lacks the manifest whose digest is part of the image name."""


class PlatformMissing(SourceError):
    """The image does not support the requested platform."""


class ImageIncomplete(SourceError):
    """The source lists the image or platform but lacks some of its content."""


class NotAnImage(SourceError):
    """No container can run it; `content` is attestation, signature, artifact or unknown."""

    def __init__(self, message: str, *, content: str = "unknown", **data: str) -> None:
        super().__init__(message, **data)
        self.content = content


class BuildFailed(ImgloadError):
    """The program that builds or pushes the image failed."""


class RegistryError(ImgloadError):
    """The registry does not answer, refuses, or violates the registry API."""

    exit_status = 5


class NodeError(ImgloadError):
    """One node failed; other nodes are not affected."""


class NodeNotRunning(NodeError):
    """The node's container is stopped or paused."""


class NodeUnusable(NodeError):
    """The node runs, but its container runtime cannot be used."""


class NodeFull(NodeError):
    """The node lacks disk space for the image."""


class NodeStalled(NodeError):
    """The node made no progress for too long."""


class ImportFailed(NodeError):
    """A command that changes images failed on the node; `command_status` is its exit status."""

    def __init__(self, message: str, *, command_status: int = 1, **data: str) -> None:
        super().__init__(message, **data)
        self.command_status = command_status


class NotVerified(NodeError):
    """The import succeeded, but verification of the image on the node failed."""


class NotRemoved(NodeError):
    """The node still has images that it was asked to remove."""


JSON_VERSION = 1


def error_json(error: ImgloadError) -> dict[str, str]:
    """Return the fields of an error for JSON output."""
    return {"kind": error.kind, "message": error.message, "hint": error.hint}
