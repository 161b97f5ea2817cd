"""Put a locally built image on every node of a local Kubernetes cluster, and prove it is there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which cannot read `_HOMES`
    from imgload.clusters.select import ClusterInfo as ClusterInfo
    from imgload.clusters.select import ClusterList as ClusterList
    from imgload.clusters.select import EngineInfo as EngineInfo
    from imgload.clusters.select import NodeInfo as NodeInfo
    from imgload.core.errors import ArchiveInvalid as ArchiveInvalid
    from imgload.core.errors import BuildFailed as BuildFailed
    from imgload.core.errors import ClusterAmbiguous as ClusterAmbiguous
    from imgload.core.errors import ClusterError as ClusterError
    from imgload.core.errors import ClusterNotFound as ClusterNotFound
    from imgload.core.errors import DigestMismatch as DigestMismatch
    from imgload.core.errors import EngineError as EngineError
    from imgload.core.errors import EngineFailed as EngineFailed
    from imgload.core.errors import EngineNotPermitted as EngineNotPermitted
    from imgload.core.errors import EngineUnreachable as EngineUnreachable
    from imgload.core.errors import ImageAmbiguous as ImageAmbiguous
    from imgload.core.errors import ImageError as ImageError
    from imgload.core.errors import ImageIncomplete as ImageIncomplete
    from imgload.core.errors import ImageNotFound as ImageNotFound
    from imgload.core.errors import ImgloadError as ImgloadError
    from imgload.core.errors import ImportFailed as ImportFailed
    from imgload.core.errors import ManifestMissing as ManifestMissing
    from imgload.core.errors import NodeError as NodeError
    from imgload.core.errors import NodeFull as NodeFull
    from imgload.core.errors import NodeNotFound as NodeNotFound
    from imgload.core.errors import NodeNotRunning as NodeNotRunning
    from imgload.core.errors import NodeStalled as NodeStalled
    from imgload.core.errors import NodeUnusable as NodeUnusable
    from imgload.core.errors import NotRemoved as NotRemoved
    from imgload.core.errors import NotVerified as NotVerified
    from imgload.core.errors import PlatformMissing as PlatformMissing
    from imgload.core.errors import ReferenceInvalid as ReferenceInvalid
    from imgload.core.errors import RegistryError as RegistryError
    from imgload.core.errors import SourceError as SourceError
    from imgload.core.errors import UsageError as UsageError
    from imgload.core.state import clear_cache as clear_cache
    from imgload.loader.api import find_clusters as find_clusters
    from imgload.loader.api import load as load
    from imgload.loader.api import verify as verify
    from imgload.loader.events import BytesSent as BytesSent
    from imgload.loader.events import Event as Event
    from imgload.loader.events import ImageFound as ImageFound
    from imgload.loader.events import NodeDone as NodeDone
    from imgload.loader.events import Note as Note
    from imgload.loader.events import SendingEnded as SendingEnded
    from imgload.loader.events import SendingStarted as SendingStarted
    from imgload.loader.loader import Loader as Loader
    from imgload.loader.plan import Action as Action
    from imgload.loader.plan import Plan as Plan
    from imgload.loader.plan import Step as Step
    from imgload.loader.plan import Verify as Verify
    from imgload.loader.prepare import LoadOptions as LoadOptions
    from imgload.loader.proof import Proof as Proof
    from imgload.loader.report import ImageResult as ImageResult
    from imgload.loader.report import LoadFailed as LoadFailed
    from imgload.loader.report import NodeResult as NodeResult
    from imgload.loader.report import Report as Report
    from imgload.oci.content import BlobWriter as BlobWriter
    from imgload.oci.content import ImageContent as ImageContent
    from imgload.oci.content import Layer as Layer
    from imgload.oci.digest import Digest as Digest
    from imgload.oci.platform import Platform as Platform
    from imgload.oci.reference import Reference as Reference
    from imgload.sources.base import Image as Image
    from imgload.sources.base import Source as Source
    from imgload.sources.choose import TransportOption as TransportOption
    from imgload.tools.doctor.finding import Diagnosis as Diagnosis
    from imgload.tools.doctor.finding import Finding as Finding
    from imgload.tools.doctor.run import diagnose as diagnose
    from imgload.tools.inventory.images import ListedImage as ListedImage
    from imgload.tools.inventory.images import Listing as Listing
    from imgload.tools.inventory.images import NodeImage as NodeImage
    from imgload.tools.inventory.images import images as images
    from imgload.tools.inventory.prune import Kept as Kept
    from imgload.tools.inventory.prune import NodePruned as NodePruned
    from imgload.tools.inventory.prune import PruneFailed as PruneFailed
    from imgload.tools.inventory.prune import PruneReport as PruneReport
    from imgload.tools.inventory.prune import prune as prune
    from imgload.tools.remote_registry.api import PushReport as PushReport
    from imgload.tools.remote_registry.api import RegistryReport as RegistryReport
    from imgload.tools.remote_registry.api import connect_registry as connect_registry
    from imgload.tools.remote_registry.api import disconnect_registry as disconnect_registry
    from imgload.tools.remote_registry.api import push_to_registry as push_to_registry
    from imgload.tools.remote_registry.config_map import Hosting as Hosting
    from imgload.tools.remote_registry.configure import NodeWiring as NodeWiring
    from imgload.tools.remote_registry.push import PushedImage as PushedImage
    from imgload.tools.watch.watch import WatchedLoad as WatchedLoad
    from imgload.tools.watch.watch import watch as watch
    from imgload.transports.base import Delivery as Delivery
    from imgload.transports.base import Order as Order
    from imgload.transports.base import Shipment as Shipment
    from imgload.transports.base import Transport as Transport

__version__ = "0.1.0"

_HOMES = {
    "clusters.select": "ClusterInfo ClusterList EngineInfo NodeInfo",
    "core.errors": (
        "ArchiveInvalid BuildFailed ClusterAmbiguous ClusterError ClusterNotFound "
        "DigestMismatch EngineError EngineFailed EngineNotPermitted EngineUnreachable "
        "ImageAmbiguous ImageError ImageIncomplete ImageNotFound ImgloadError ImportFailed "
        "ManifestMissing NodeError NodeFull NodeNotFound NodeNotRunning NodeStalled "
        "NodeUnusable NotVerified NotRemoved PlatformMissing ReferenceInvalid RegistryError "
        "SourceError UsageError"
    ),
    "core.state": "clear_cache",
    "loader.api": "find_clusters load verify",
    "loader.events": "BytesSent Event ImageFound NodeDone Note SendingEnded SendingStarted",
    "loader.loader": "Loader",
    "loader.plan": "Action Plan Step Verify",
    "loader.proof": "Proof",
    "loader.report": "ImageResult LoadFailed NodeResult Report",
    "oci.content": "BlobWriter ImageContent Layer",
    "oci.digest": "Digest",
    "sources.base": "Image Source",
    "transports.base": "Delivery Order Shipment Transport",
    "loader.prepare": "LoadOptions",
    "oci.platform": "Platform",
    "oci.reference": "Reference",
    "tools.doctor.finding": "Diagnosis Finding",
    "tools.doctor.run": "diagnose",
    "tools.inventory.images": "ListedImage Listing NodeImage images",
    "tools.inventory.prune": "Kept NodePruned PruneFailed PruneReport prune",
    "tools.remote_registry.api": (
        "PushReport RegistryReport connect_registry disconnect_registry push_to_registry"
    ),
    "tools.remote_registry.config_map": "Hosting",
    "tools.remote_registry.configure": "NodeWiring",
    "tools.remote_registry.push": "PushedImage",
    "tools.watch.watch": "WatchedLoad watch",
    "sources.choose": "TransportOption",
}
"""The modules of the public names; each is imported when first used, since start-up counts."""
_MODULES = {name: f"imgload.{module}" for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(["__version__", *_MODULES])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
