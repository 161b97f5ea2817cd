"""Put a locally built image on every node of a local Kubernetes cluster, and prove it is there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgload.api import load, verify
    from imgload.errors import (
        ArchiveInvalid,
        ClusterAmbiguous,
        ClusterError,
        ClusterNotFound,
        DigestMismatch,
        EngineError,
        EngineFailed,
        EngineNotPermitted,
        EngineUnreachable,
        ImageAmbiguous,
        ImageError,
        ImageNotFound,
        ImgloadError,
        ImportFailed,
        LoadFailed,
        ManifestMissing,
        NodeError,
        NodeFull,
        NodeNotFound,
        NodeNotRunning,
        NodeStalled,
        NodeUnusable,
        NotProven,
        PlatformMissing,
        ReferenceInvalid,
        SourceError,
        UsageError,
    )
    from imgload.events import (
        BytesSent,
        Event,
        ImageFound,
        NodeDone,
        Note,
        SendingEnded,
        SendingStarted,
    )
    from imgload.loader import Loader
    from imgload.oci.digest import Digest
    from imgload.oci.platform import Platform
    from imgload.plan import Image, Plan, Proof, Step
    from imgload.reference import Reference
    from imgload.report import ImageResult, NodeResult, Report

__version__ = "0.1.0"

__all__ = [
    "ArchiveInvalid",
    "BytesSent",
    "ClusterAmbiguous",
    "ClusterError",
    "ClusterNotFound",
    "Digest",
    "DigestMismatch",
    "EngineError",
    "EngineFailed",
    "EngineNotPermitted",
    "EngineUnreachable",
    "Event",
    "Image",
    "ImageAmbiguous",
    "ImageError",
    "ImageFound",
    "ImageNotFound",
    "ImageResult",
    "ImgloadError",
    "ImportFailed",
    "LoadFailed",
    "Loader",
    "ManifestMissing",
    "NodeDone",
    "NodeError",
    "NodeFull",
    "NodeNotFound",
    "NodeNotRunning",
    "NodeResult",
    "NodeStalled",
    "NodeUnusable",
    "NotProven",
    "Note",
    "Plan",
    "Platform",
    "PlatformMissing",
    "Proof",
    "Reference",
    "ReferenceInvalid",
    "Report",
    "SendingEnded",
    "SendingStarted",
    "SourceError",
    "Step",
    "UsageError",
    "__version__",
    "load",
    "verify",
]

_HOMES = {
    "imgload.api": ("load", "verify"),
    "imgload.errors": (
        "ArchiveInvalid",
        "ClusterAmbiguous",
        "ClusterError",
        "ClusterNotFound",
        "DigestMismatch",
        "EngineError",
        "EngineFailed",
        "EngineNotPermitted",
        "EngineUnreachable",
        "ImageAmbiguous",
        "ImageError",
        "ImageNotFound",
        "ImgloadError",
        "ImportFailed",
        "LoadFailed",
        "ManifestMissing",
        "NodeError",
        "NodeFull",
        "NodeNotFound",
        "NodeNotRunning",
        "NodeStalled",
        "NodeUnusable",
        "NotProven",
        "PlatformMissing",
        "ReferenceInvalid",
        "SourceError",
        "UsageError",
    ),
    "imgload.events": (
        "BytesSent",
        "Event",
        "ImageFound",
        "NodeDone",
        "Note",
        "SendingEnded",
        "SendingStarted",
    ),
    "imgload.loader": ("Loader",),
    "imgload.oci.digest": ("Digest",),
    "imgload.oci.platform": ("Platform",),
    "imgload.plan": (
        "Image",
        "Plan",
        "Proof",
        "Step",
    ),
    "imgload.reference": ("Reference",),
    "imgload.report": (
        "ImageResult",
        "NodeResult",
        "Report",
    ),
}
"""Where the public names live; each is imported when it is first used, since start-up counts."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
