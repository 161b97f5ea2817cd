"""The pull transport: containerd on each node pulls from a read-only registry in this process.

The content is stored in unnamed files while it arrives, and each node reads along, so that neither
the order of the source nor the pace of a node matters. containerd decides by chain ID which layers
it lacks, and verifies the digest of every blob. A node that cannot pull gets the same content
through the fallback.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO

import attrs

from imgload.clusters.nodes.base import UNREACHABLE, NodeRuntime
from imgload.core import trace
from imgload.core.compression import MAGIC_LENGTH, Decompressor, compression_of
from imgload.core.errors import DigestMismatch, ImgloadError, ImportFailed, NodeFull
from imgload.core.parallel import Task
from imgload.core.state import spool_folder
from imgload.engines.cache import EngineCache
from imgload.oci.content import BlobWriter, Chunk, ImageContent
from imgload.oci.digest import Digest
from imgload.oci.document import LAYER, Descriptor, Index, Manifest
from imgload.oci.reference import pinned
from imgload.registry.blob_store import BlobStore, StoredBlob, StoreFull
from imgload.registry.read_server import serving
from imgload.transports.base import Delivery, Order, Shipment, Transport
from imgload.transports.imports import ImportTransport
from imgload.transports.layout import form_for_nodes, manifest_for, with_layers

_ABORT_SECONDS = 1.5
_LOOPBACK = "127.0.0.1"
VM_HOSTS = ("host.docker.internal", "host.lima.internal", "host.containers.internal")
"""Names of this machine in the VMs of Docker Desktop, Colima and Podman, which relay connections to
its loopback."""


class PullTransport(Transport):
    """Serves content to ``ctr images pull`` on each node."""

    name = "pull"

    def __init__(self, fallback: Transport | None = None) -> None:
        self.fallback = fallback or ImportTransport()
        self.is_store_full = False
        """Whether content could not be stored; the fallback streams it from then on."""

    def start(self, order: Order) -> Shipment:
        has_names = not any(name.startswith("sha256:") for name in order.question.names)
        if has_names and not self.is_store_full and _has_disk_space(order):
            shipment = PullShipment(order, self)
            if shipment.start():
                return shipment
        if not has_names:
            trace.log("transport: nodes import a stream: an image without a name cannot be pulled")
        elif not self.is_store_full:
            trace.log("transport: nodes import a stream: no server, or no disk space for content")
        return self.fallback.start(order)


def _has_disk_space(order: Order) -> bool:
    try:
        return shutil.disk_usage(spool_folder()).free > 2 * order.size
    except OSError:
        return False


@attrs.define(eq=False, repr=False)
class PullShipment(Shipment):
    """Content that nodes pull while it is received."""

    order: Order
    transport: PullTransport
    sent: dict[str, dict[Digest, int]] = attrs.field(init=False)
    store: BlobStore = attrs.field(factory=BlobStore)
    _contents: list[ImageContent] = attrs.field(factory=list)
    plain: dict[Digest, Descriptor] = attrs.field(factory=dict)
    """Layers that were decompressed, by the digest of the compressed blob."""
    _original: dict[Digest, Digest] = attrs.field(factory=dict)
    """The digests in the source of layers and manifests that are served in another form."""
    _bytes: dict[str, int] = attrs.field(factory=dict)
    _urls: dict[str, list[str]] = attrs.field(factory=dict)
    """Addresses of the store, for each node that may connect to it."""
    _tasks: dict[str, Task[Delivery]] = attrs.field(factory=dict)
    _servers: ExitStack = attrs.field(factory=ExitStack)
    _aborted: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self.sent = {node.name: {} for node in self.order.nodes}
        self._bytes = dict.fromkeys(self.sent, 0)

    def start(self) -> bool:
        """Serve the nodes that may reach this machine; return False if no node may.

        With a save, nodes pull from its first content on: until then they would seem to stall.
        """
        cache = EngineCache.load()
        secret_of = {secrets.token_hex(16): node for node in self.order.nodes}
        ports: dict[str, int | None] = {}
        for secret, node in secret_of.items():
            if reason := self._why_no_pull(node, cache):
                trace.log(f"transport: {node.name} imports a stream: {reason}")
                continue
            hosts = {gateway: gateway for gateway in node.gateways}
            hosts |= dict.fromkeys(VM_HOSTS, _LOOPBACK)
            for address in hosts.values():
                if address not in ports:
                    ports[address] = self._serve(address, secret_of)
            self._urls[node.name] = [
                f"http://{h}:{port}/v2/{secret}" for h, a in hosts.items() if (port := ports[a])
            ]
            trace.log(f"transport: {node.name} pulls from {' or '.join(self._urls[node.name])}")
        if self.order.missing is not None:
            self._start_pulls()
        return bool(self._urls)

    def _why_no_pull(self, node: NodeRuntime, cache: EngineCache) -> str:
        """Return why a node cannot pull; empty if it can."""
        if not node.gateways:
            return "no address at which it reaches this machine is known"
        if cache.blocks_pulls(node.engine.endpoint.url, node.gateways):
            return "it could not connect to this machine within the last day"
        if node.name in self.order.discarded and node.pulls_discarded_layers:
            return "its containerd would pull unpacked layers again"
        return ""

    def _start_pulls(self) -> None:
        for node in self.order.nodes:
            with self._lock:
                if node.name in self._urls and node.name not in self._tasks:
                    pull = partial(self._pull, node, self._urls[node.name])
                    self._tasks[node.name] = Task(pull)

    def _serve(self, address: str, nodes: Mapping[str, NodeRuntime]) -> int | None:
        """Serve the content on an address; return the port, or None if it is another machine's."""
        names = {secret: node.name for secret, node in nodes.items()}
        try:
            return self._servers.enter_context(serving(address, self.store, names, self._count))
        except OSError:
            return None

    def _pull(self, node: NodeRuntime, urls: Sequence[str]) -> Delivery:
        query = self.order.question
        try:
            survey = node.pull(urls, query.names, self.order.platform, query)
        except ImgloadError as error:
            is_unreachable = isinstance(error, ImportFailed) and error.command_status == UNREACHABLE
            if is_unreachable and not self._aborted:
                EngineCache.load().record_blocked_pulls(node.engine.endpoint.url, node.gateways)
            return Delivery(0, error)
        return Delivery(0, survey=survey)

    def _count(self, node: str, digest: Digest, size: int) -> None:
        with self._lock:
            self._bytes[node] += size
            counted = self._original.get(digest, digest)
            self.sent[node][counted] = self.sent[node].get(counted, 0) + size
        self.order.on_bytes(node, size)

    @property
    def is_open(self) -> bool:
        """Whether a node still reads, or needs the content from the fallback."""
        return len(self._tasks) < len(self.order.nodes) or any(
            not task.done or self._needs_fallback(task.result()) for task in self._tasks.values()
        )

    def lacks(self, digest: Digest, diff_id: Digest | None) -> bool:
        if digest in self.store.blobs or digest in self.plain:
            return False
        missing = self.order.missing
        return missing is None or diff_id is None or any(diff_id in m for m in missing.values())

    def announce(
        self, manifest: Manifest, diff_ids: Sequence[Digest], names: Sequence[str]
    ) -> None:
        """Serve the manifest to the nodes that store their layers in its form."""
        if len(manifest.layers) != len(diff_ids):
            return
        layers = list(zip(manifest.layers, diff_ids, strict=True))
        self._start_pulls()
        for node in self._urls:
            unpacked, stored = self.order.unpacked.get(node, ()), self.order.stored.get(node, ())
            if self.is_unchanged or all(
                layer.digest in stored if diff_id in unpacked else layer.digest == diff_id
                for layer, diff_id in layers
            ):
                self._name(node, manifest, names)

    @property
    def is_unchanged(self) -> bool:
        """Whether manifest and layers must stay as they are."""
        return self.order.keep_manifest or any(map(pinned, self.order.question.names))

    def _name(self, node: str, manifest: Manifest, names: Sequence[str]) -> None:
        self.store.add_document(manifest.digest, manifest.media_type, manifest.raw)
        for name in names:
            if not pinned(name):
                self.store.add_name(node, name, manifest.digest)

    def blob(
        self, size: int, digest: Digest | None = None, diff_id: Digest | None = None
    ) -> BlobWriter:
        self._start_pulls()
        if digest is not None and (self.is_unchanged or diff_id in {None, digest}):
            blob = StoredBlob(size)
            self.store.add_blob(digest, blob)
            return _BlobWriter(self, size, digest, blob)
        return _LayerWriter(self, size, digest, diff_id)

    def place(self, file: IO[bytes], offset: int, size: int, digest: Digest) -> bool:
        """Serve a blob from the file that has it, unless it is better decompressed."""
        start = os.pread(file.fileno(), MAGIC_LENGTH, offset)
        if compression_of(start) and not self.is_unchanged:
            return False
        self.store.add_blob(digest, StoredBlob(size, file, offset, size, is_own=False))
        return True

    def append(self, blob: StoredBlob, chunk: Chunk) -> None:
        try:
            blob.append(chunk)
        except StoreFull:
            self.transport.is_store_full = True
            raise

    def add_plain(self, digest: Digest, plain: Descriptor) -> None:
        self.plain[digest] = plain
        self._original[plain.digest] = digest

    @property
    def plain_sizes(self) -> Mapping[Digest, int]:
        return {layer.digest: layer.size for layer in self.plain.values()}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        yield

    def image(self, content: ImageContent) -> None:
        original = content.manifest.digest
        content = with_layers(content, self.plain)
        self._contents.append(content)
        for digest, raw in content.indexes.items():
            self.store.add_document(digest, Index.descriptor(raw, "").media_type, raw)
        for node in self._urls:
            stored, unpacked = self.order.stored.get(node, ()), self.order.unpacked.get(node, ())
            kept = [
                layer.descriptor.digest
                for layer in content.layers
                if layer.descriptor.digest in self.store.blobs and layer.diff_id not in unpacked
            ]
            describe = partial(self.order.stored_layers, node)
            manifest = manifest_for(content, stored, kept, describe, keep=self.is_unchanged)
            self._original[manifest.digest] = original
            self._name(node, manifest, content.names)

    def complete(self) -> None:
        self.store.complete()

    def finish(self) -> Mapping[str, Delivery]:
        if not self._aborted:
            self._start_pulls()
        pulled = {name: task.result() for name, task in self._tasks.items()}
        self._servers.close()
        deliveries = {n: attrs.evolve(d, bytes_sent=self._bytes[n]) for n, d in pulled.items()}
        others = [n for n in self.order.nodes if self._needs_fallback(deliveries.get(n.name))]
        if others and not self._aborted:
            imported = self._import(others)
            for name, delivery in imported.items():
                note = self._note(name, deliveries.get(name))
                deliveries[name] = attrs.evolve(delivery, note=note)
        self.close()
        return deliveries

    def _needs_fallback(self, delivery: Delivery | None) -> bool:
        return delivery is None or (
            isinstance(delivery.error, ImgloadError) and not isinstance(delivery.error, NodeFull)
        )

    def _note(self, node: str, delivery: Delivery | None) -> str:
        if delivery is None or delivery.error is None:
            return ""
        return f"{node} could not pull, importing instead: {delivery.error.message}"

    def _import(self, nodes: Sequence[NodeRuntime]) -> Mapping[str, Delivery]:
        """Deliver the stored content by the fallback."""
        shipment = self.transport.fallback.start(attrs.evolve(self.order, nodes=nodes))
        try:
            for content in self._contents:
                pairs = [(layer.descriptor.digest, layer.diff_id) for layer in content.layers]
                for digest, diff_id in (*pairs, (content.config.digest, None)):
                    blob = self.store.blobs.get(digest)  # none for layers that no node lacks
                    if blob and shipment.lacks(digest, diff_id):
                        with _naming(content):
                            _copy(blob, shipment, digest, diff_id)
                shipment.image(content)
            shipment.complete()
        except OSError as error:
            shipment.abort()
            self.transport.is_store_full = True
            raise StoreFull(f"stored content cannot be read: {error}") from error
        except BaseException:
            shipment.abort()
            raise
        deliveries = shipment.finish()
        for node, sent in shipment.sent.items():
            self.sent[node] = {self._original.get(d, d): size for d, size in sent.items()}
        return deliveries

    def abort(self) -> None:
        self._aborted = True
        self.close()
        for task in self._tasks.values():
            task.wait_at_most(_ABORT_SECONDS)

    def close(self) -> None:
        self.store.close()
        self._servers.close()


@contextmanager
def _naming(content: ImageContent) -> Iterator[None]:
    """Name the image of a layer that was decompressed, and is not the one in the config."""
    try:
        yield
    except DigestMismatch as error:
        name = content.names[0]
        message = f"{name} has other layers than its config lists: {error.message}"
        hint = "build the image again, or save it from an engine that runs it"
        raise DigestMismatch(message, hint=hint, image=name) from error


def _copy(blob: StoredBlob, shipment: Shipment, digest: Digest, diff_id: Digest | None) -> None:
    writer = shipment.blob(blob.wait_for_size(), digest, diff_id)
    try:
        for chunk in blob.chunks():
            writer.write(chunk)
        writer.finish(digest)
    except BaseException:
        writer.abandon()
        raise


@attrs.define(eq=False, repr=False)
class _BlobWriter:
    """Writes a blob of known digest into the store; the node verifies the digest."""

    _shipment: PullShipment
    _size: int
    _digest: Digest
    _blob: StoredBlob
    _written: int = 0
    _ended: bool = False

    def write(self, chunk: Chunk) -> None:
        self._written += len(chunk)
        if self._written > self._size:
            raise DigestMismatch(f"a blob is longer than the {self._size} bytes announced")
        self._shipment.append(self._blob, chunk)

    def finish(self, digest: Digest | None = None) -> Digest:
        if self._written < self._size or digest not in {None, self._digest}:
            raise DigestMismatch(f"a blob is not {digest}, or is shorter than announced")
        self._ended = True
        return self._digest

    def abandon(self) -> None:
        if not self._ended:
            self._ended = True
            self._shipment.store.remove_blob(self._digest)


@attrs.define(eq=False, repr=False)
class _LayerWriter:
    """Writes a layer into the store, decompressed unless a name demands its manifest.

    Decompression on the nodes takes half of the time of a load: Go's is slow. Digests that are
    known are not computed; the node verifies them.
    """

    _shipment: PullShipment
    _size: int
    _digest: Digest | None
    _diff_id: Digest | None
    _blob: StoredBlob = attrs.field(factory=lambda: StoredBlob(None))
    _written: int = 0
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _plain_hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _decompressor: Decompressor | None = None
    _ended: bool = False

    def write(self, chunk: Chunk) -> None:
        if not self._written:
            keep = self._shipment.is_unchanged
            form = form_for_nodes(chunk, keep=keep)
            self._decompressor = Decompressor(form, "a layer's") if form and not keep else None
        self._written += len(chunk)
        if self._written > self._size:
            raise DigestMismatch(f"a blob is longer than the {self._size} bytes announced")
        if self._digest is None or self._decompressor is None:
            self._hasher.update(chunk)
        for piece in self._decompressor.feed(chunk) if self._decompressor else (chunk,):
            if self._decompressor and self._diff_id is None:
                self._plain_hasher.update(piece)
            self._shipment.append(self._blob, piece)

    def finish(self, digest: Digest | None = None) -> Digest:
        actual = Digest("sha256", self._hasher.hexdigest())
        if self._digest is not None and self._decompressor:
            actual = self._digest
        if self._written < self._size or digest not in {None, actual}:
            raise DigestMismatch(f"a blob is {actual}, not {digest or 'as long as announced'}")
        self._ended = True
        size = self._blob.complete()
        if self._decompressor:
            self._decompressor.finish()
            plain = self._diff_id or Digest("sha256", self._plain_hasher.hexdigest())
            self._shipment.add_plain(actual, Descriptor(LAYER, plain, size))
            self._shipment.store.add_blob(plain, self._blob)
        else:
            self._shipment.store.add_blob(actual, self._blob)
        return actual

    def abandon(self) -> None:
        if not self._ended:
            self._ended = True
            self._blob.fail()
