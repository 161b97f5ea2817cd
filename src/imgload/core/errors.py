"""Everything imgload raises.

One root, so that a caller can catch it all; each error carries the hint that a user is shown.

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
    │   └── ImageIncomplete
    ├── BuildFailed              1   the builder said why
    ├── RegistryError            5   does not answer, or refuses
    ├── NodeError                1   one node; the other nodes go on
    │   ├── NodeNotRunning
    │   ├── NodeUnusable
    │   ├── NodeFull
    │   ├── NodeStalled
    │   ├── ImportFailed
    │   ├── NotProven
    │   └── NotRemoved
    ├── LoadFailed               1   carries the report
    └── PruneFailed              1   carries the report
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import ClassVar

_LONGEST = 2000


def visible(text: str) -> str:
    """Return a text in which nothing but line ends does anything to a terminal."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def printable(text: str) -> str:
    """Return a text fit for a terminal: archives and engines may say anything."""
    shown = visible(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def one_line(text: str) -> str:
    """Return a text fit for one line of a terminal."""
    return printable(text).replace("\n", "\N{REPLACEMENT CHARACTER}")


_NOISE = re.compile(
    r"time=\S+ level=(?:trace|debug|info|warn(?:ing)?)\b|"
    r"(?:TRAC|DEBU|INFO|WARN)\[|[IW]\d{4} \d\d:|"
    r"(?:\*\* )?(?:warning|deprecated|deprecation)\b|\*\* ",
    re.IGNORECASE,
)
"""What containerd, podman, crictl, kubectl and ssh print of warnings, each as its own logger does:
logrus with and without a terminal, klog, and plain words."""
_LOGGED = re.compile(r'time=\S+ level=\w+ msg="((?:[^"\\]|\\.)*)"(?: error="((?:[^"\\]|\\.)*)")?')
_MILD = {"trace", "debug", "info", "warn", "warning"}


def reason(text: str) -> str:
    """Return what a program's stderr says about its failure; empty when it has only warnings.

    Newer programs print warnings first, as containerd 2.2 does of what is deprecated.
    """
    lines = [line for line in text.splitlines() if not _NOISE.match(line.lstrip())]
    return "\n".join(line for line in map(_spoken, lines) if line is not None).strip()


def _spoken(line: str) -> str | None:
    """Return the message of a line that a logger wrote, or the line; None for a warning."""
    parts: Sequence[object]
    if logged := _LOGGED.match(line):
        parts = logged.groups()
    elif entry := _json_entry(line):
        if str(entry["level"]).lower() in _MILD:
            return None
        parts = entry["msg"], entry.get("error")
    else:
        return line
    return ": ".join(str(part).replace('\\"', '"') for part in parts if part)


def _json_entry(line: str) -> dict[str, object] | None:
    """Return a line of a log in JSON, as logrus and slog write it."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if "level" in entry and isinstance(entry.get("msg"), str) else None


class ImgloadError(Exception):
    """The root of all errors of imgload.

    Args:
        message: what failed, where and why, in one or two lines.
        hint: what to do next, preferably a command; may be empty.

    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = printable(message)
        self.hint = one_line(hint)
        super().__init__(self.message)

    @property
    def kind(self) -> str:
        """The error's name for machines: ``ImageNotFound`` is ``image-not-found``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()


class UsageError(ImgloadError):
    """The call itself makes no sense."""

    exit_status = 2


class ReferenceInvalid(UsageError):
    """An image name that Kubernetes would not accept."""


class ImageError(ImgloadError):
    """The image asked for could not be settled on."""

    exit_status = 3


class ImageNotFound(ImageError):
    """No source has the image.

    Args:
        message: what failed, where and why.
        hint: what to do next.
        image: its name, as it was written.

    """

    def __init__(self, message: str, *, hint: str = "", image: str = "") -> None:
        super().__init__(message, hint=hint)
        self.image = printable(image)


class ImageAmbiguous(ImageError):
    """Two sources have different images under the name."""


class ClusterError(ImgloadError):
    """The cluster or node asked for could not be settled on."""

    exit_status = 4


class ClusterNotFound(ClusterError):
    """No reachable engine runs such a cluster."""


class ClusterAmbiguous(ClusterError):
    """Several clusters fit, and none was named."""


class NodeNotFound(ClusterError):
    """The cluster has no such node."""


class EngineError(ImgloadError):
    """A container engine did not do its part."""

    exit_status = 5


class EngineUnreachable(EngineError):
    """Nobody answers at the engine's address."""


class EngineNotPermitted(EngineError):
    """The engine's socket may not be opened by this user."""


class EngineFailed(EngineError):
    """The engine answered with an error, or stopped in the middle of an answer.

    Args:
        message: what failed, where and why.
        hint: what to do next.
        refused: whether the engine is well and refuses the request, so that another may succeed.

    """

    def __init__(self, message: str, *, hint: str = "", refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused


class SourceError(ImgloadError):
    """What the source gave is not a usable image."""

    exit_status = 6


class ArchiveInvalid(SourceError):
    """The archive is truncated, inconsistent, too large, or no image archive at all."""


class DigestMismatch(SourceError):
    """Content is not what its digest says."""


class ManifestMissing(SourceError):
    """The source does not have the manifest whose digest a name demands."""


class PlatformMissing(SourceError):
    """The image does not have the platform asked for."""


class ImageIncomplete(SourceError):
    """The source lists the platform, or the image, and does not have all of its content."""


class BuildFailed(ImgloadError):
    """The program that was to build or to push the image ended with an error."""


class RegistryError(ImgloadError):
    """A registry does not answer, or not as a registry does, or refuses."""

    exit_status = 5


class NodeError(ImgloadError):
    """One node could not be loaded; the other nodes are not affected."""


class NodeNotRunning(NodeError):
    """The node's container is stopped or paused."""


class NodeUnusable(NodeError):
    """The node runs, and its containerd cannot be used."""


class NodeFull(NodeError):
    """The node has no room for the image."""


class NodeStalled(NodeError):
    """The node took nothing for too long."""


class ImportFailed(NodeError):
    """``ctr images import`` failed on the node."""


class NotProven(NodeError):
    """The import claimed success, and the node does not have the image."""


class NotRemoved(NodeError):
    """The node still has images that were to be removed."""


JSON_VERSION = 1


def error_json(error: ImgloadError) -> dict[str, str]:
    """Return an error for machines."""
    return {"kind": error.kind, "message": error.message, "hint": error.hint}
