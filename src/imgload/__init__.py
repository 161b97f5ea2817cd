"""Put a locally built image on every node of a local Kubernetes cluster, and prove it is there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgload.api import find_clusters, images, load, prune, verify
    from imgload.clusters.listing import ClusterInfo, ClusterList, EngineInfo, NodeInfo
    from imgload.doctor.examination import examine
    from imgload.doctor.finding import Diagnosis, Finding
    from imgload.errors import (
        ArchiveInvalid,
        BuildFailed,
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
        ImageIncomplete,
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
        NotRemoved,
        PlatformMissing,
        PruneFailed,
        ReferenceInvalid,
        RegistryError,
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
    from imgload.listing import ListedImage, Listing
    from imgload.loader import Loader
    from imgload.nodes.inventory import NodeImage
    from imgload.oci.digest import Digest
    from imgload.oci.platform import Platform
    from imgload.plan import Action, Image, Plan, Proof, Step, Verify
    from imgload.pruning import Kept, NodePruned, PruneReport
    from imgload.reference import Reference
    from imgload.registry.api import (
        PushReport,
        RegistryReport,
        connect_registry,
        disconnect_registry,
        push_to_registry,
    )
    from imgload.registry.hosting import Hosting
    from imgload.registry.pushing import PushedImage
    from imgload.registry.wiring import NodeWiring
    from imgload.report import ImageResult, NodeResult, Report
    from imgload.state import clear_cache
    from imgload.transports.choose import TransportOption
    from imgload.watching import WatchedLoad, watch

__version__ = "0.1.0"

__all__ = [
    "Action",
    "ArchiveInvalid",
    "BuildFailed",
    "BytesSent",
    "ClusterAmbiguous",
    "ClusterError",
    "ClusterInfo",
    "ClusterList",
    "ClusterNotFound",
    "Diagnosis",
    "Digest",
    "DigestMismatch",
    "EngineError",
    "EngineFailed",
    "EngineInfo",
    "EngineNotPermitted",
    "EngineUnreachable",
    "Event",
    "Finding",
    "Hosting",
    "Image",
    "ImageAmbiguous",
    "ImageError",
    "ImageFound",
    "ImageIncomplete",
    "ImageNotFound",
    "ImageResult",
    "ImgloadError",
    "ImportFailed",
    "Kept",
    "ListedImage",
    "Listing",
    "LoadFailed",
    "Loader",
    "ManifestMissing",
    "NodeDone",
    "NodeError",
    "NodeFull",
    "NodeImage",
    "NodeInfo",
    "NodeNotFound",
    "NodeNotRunning",
    "NodePruned",
    "NodeResult",
    "NodeStalled",
    "NodeUnusable",
    "NodeWiring",
    "NotProven",
    "NotRemoved",
    "Note",
    "Plan",
    "Platform",
    "PlatformMissing",
    "Proof",
    "PruneFailed",
    "PruneReport",
    "PushReport",
    "PushedImage",
    "Reference",
    "ReferenceInvalid",
    "RegistryError",
    "RegistryReport",
    "Report",
    "SendingEnded",
    "SendingStarted",
    "SourceError",
    "Step",
    "TransportOption",
    "UsageError",
    "Verify",
    "WatchedLoad",
    "__version__",
    "clear_cache",
    "connect_registry",
    "disconnect_registry",
    "examine",
    "find_clusters",
    "images",
    "load",
    "prune",
    "push_to_registry",
    "verify",
    "watch",
]

_HOMES = {
    "imgload.api": ("find_clusters", "images", "load", "prune", "verify"),
    "imgload.clusters.listing": ("ClusterInfo", "ClusterList", "EngineInfo", "NodeInfo"),
    "imgload.doctor.examination": ("examine",),
    "imgload.doctor.finding": ("Diagnosis", "Finding"),
    "imgload.errors": (
        "ArchiveInvalid",
        "BuildFailed",
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
        "ImageIncomplete",
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
        "NotRemoved",
        "PlatformMissing",
        "PruneFailed",
        "ReferenceInvalid",
        "RegistryError",
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
    "imgload.listing": ("ListedImage", "Listing"),
    "imgload.loader": ("Loader",),
    "imgload.nodes.inventory": ("NodeImage",),
    "imgload.oci.digest": ("Digest",),
    "imgload.oci.platform": ("Platform",),
    "imgload.plan": (
        "Action",
        "Image",
        "Plan",
        "Proof",
        "Step",
        "Verify",
    ),
    "imgload.pruning": ("Kept", "NodePruned", "PruneReport"),
    "imgload.reference": ("Reference",),
    "imgload.registry.api": (
        "PushReport",
        "RegistryReport",
        "connect_registry",
        "disconnect_registry",
        "push_to_registry",
    ),
    "imgload.registry.hosting": ("Hosting",),
    "imgload.registry.pushing": ("PushedImage",),
    "imgload.registry.wiring": ("NodeWiring",),
    "imgload.report": (
        "ImageResult",
        "NodeResult",
        "Report",
    ),
    "imgload.state": ("clear_cache",),
    "imgload.transports.choose": ("TransportOption",),
    "imgload.watching": ("WatchedLoad", "watch"),
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
