"""Put a locally built image on every node of a local Kubernetes cluster, and prove it is there."""

from __future__ import annotations

from imgload.api import load
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
]
