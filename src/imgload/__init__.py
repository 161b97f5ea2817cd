"""Load locally built images onto every node of a local Kubernetes cluster and verify them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which cannot read `_HOMES`
    from imgload.clusters.listing import ClusterList as ClusterList
    from imgload.clusters.nodes.base import NodeRuntime as NodeRuntime
    from imgload.clusters.nodes.proof import Proof as Proof
    from imgload.clusters.provider import ClusterProvider as ClusterProvider
    from imgload.clusters.provider import register_provider as register_provider
    from imgload.clusters.select import select_nodes as select_nodes
    from imgload.core.errors import BuildFailed as BuildFailed
    from imgload.core.errors import ClusterError as ClusterError
    from imgload.core.errors import EngineError as EngineError
    from imgload.core.errors import ImageAmbiguous as ImageAmbiguous
    from imgload.core.errors import ImageError as ImageError
    from imgload.core.errors import ImageNotFound as ImageNotFound
    from imgload.core.errors import ImgloadError as ImgloadError
    from imgload.core.errors import NodeError as NodeError
    from imgload.core.errors import NotVerified as NotVerified
    from imgload.core.errors import RegistryError as RegistryError
    from imgload.core.errors import SourceError as SourceError
    from imgload.core.errors import UsageError as UsageError
    from imgload.core.state import clear_cache as clear_cache
    from imgload.engines.base import ContainerHost as ContainerHost
    from imgload.engines.base import ImageStore as ImageStore
    from imgload.engines.docker import Docker as Docker
    from imgload.engines.podman import Podman as Podman
    from imgload.loader.api import find_clusters as find_clusters
    from imgload.loader.api import load as load
    from imgload.loader.api import verify as verify
    from imgload.loader.entries import ImageEntry as ImageEntry
    from imgload.loader.events import BytesSent as BytesSent
    from imgload.loader.events import Event as Event
    from imgload.loader.events import ImageFound as ImageFound
    from imgload.loader.events import NodeDone as NodeDone
    from imgload.loader.events import Note as Note
    from imgload.loader.events import SendingEnded as SendingEnded
    from imgload.loader.events import SendingStarted as SendingStarted
    from imgload.loader.lists import load_list as load_list
    from imgload.loader.loader import Loader as Loader
    from imgload.loader.prepare import LoadOptions as LoadOptions
    from imgload.loader.report import ImageResult as ImageResult
    from imgload.loader.report import LoadFailed as LoadFailed
    from imgload.loader.report import NodeResult as NodeResult
    from imgload.loader.report import Report as Report
    from imgload.loader.report import Restart as Restart
    from imgload.loader.report import RestartFailed as RestartFailed
    from imgload.loader.report import Workload as Workload
    from imgload.loader.restore import restore as restore
    from imgload.oci.content import BlobWriter as BlobWriter
    from imgload.oci.content import ImageContent as ImageContent
    from imgload.oci.content import Layer as Layer
    from imgload.oci.digest import Digest as Digest
    from imgload.oci.platform import Platform as Platform
    from imgload.oci.reference import Reference as Reference
    from imgload.sources.base import Image as Image
    from imgload.sources.base import Source as Source
    from imgload.tools.doctor.finding import Diagnosis as Diagnosis
    from imgload.tools.doctor.run import diagnose as diagnose
    from imgload.tools.inventory.images import Listing as Listing
    from imgload.tools.inventory.images import images as images
    from imgload.tools.inventory.prune import PruneFailed as PruneFailed
    from imgload.tools.inventory.prune import PruneReport as PruneReport
    from imgload.tools.inventory.prune import prune as prune
    from imgload.tools.remote_registry.api import PushReport as PushReport
    from imgload.tools.remote_registry.api import RegistryReport as RegistryReport
    from imgload.tools.remote_registry.api import connect_registry as connect_registry
    from imgload.tools.remote_registry.api import disconnect_registry as disconnect_registry
    from imgload.tools.remote_registry.api import push_to_registry as push_to_registry
    from imgload.tools.watch.watch import WatchedLoad as WatchedLoad
    from imgload.tools.watch.watch import watch as watch
    from imgload.transports.base import Delivery as Delivery
    from imgload.transports.base import Order as Order
    from imgload.transports.base import Shipment as Shipment
    from imgload.transports.base import Transport as Transport

__version__ = "1.0.0"

_HOMES = {
    "clusters.nodes.base": "NodeRuntime",
    "clusters.nodes.proof": "Proof",
    "clusters.provider": "ClusterProvider register_provider",
    "clusters.listing": "ClusterList",
    "clusters.select": "select_nodes",
    "core.errors": (
        "BuildFailed ClusterError EngineError ImageAmbiguous ImageError ImageNotFound "
        "ImgloadError NodeError NotVerified RegistryError SourceError UsageError"
    ),
    "core.state": "clear_cache",
    "engines.base": "ImageStore ContainerHost",
    "engines.docker": "Docker",
    "engines.podman": "Podman",
    "loader.api": "find_clusters load verify",
    "loader.entries": "ImageEntry",
    "loader.events": "BytesSent Event ImageFound NodeDone Note SendingEnded SendingStarted",
    "loader.lists": "load_list",
    "loader.loader": "Loader",
    "loader.prepare": "LoadOptions",
    "loader.report": "ImageResult LoadFailed NodeResult Report Restart RestartFailed Workload",
    "loader.restore": "restore",
    "oci.content": "BlobWriter ImageContent Layer",
    "oci.digest": "Digest",
    "oci.platform": "Platform",
    "oci.reference": "Reference",
    "sources.base": "Image Source",
    "tools.doctor.finding": "Diagnosis",
    "tools.doctor.run": "diagnose",
    "tools.inventory.images": "images Listing",
    "tools.inventory.prune": "prune PruneFailed PruneReport",
    "tools.remote_registry.api": (
        "PushReport RegistryReport connect_registry disconnect_registry push_to_registry"
    ),
    "tools.watch.watch": "WatchedLoad watch",
    "transports.base": "Delivery Order Shipment Transport",
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
