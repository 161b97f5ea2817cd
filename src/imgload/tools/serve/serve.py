"""Serve the images of the local engines to the nodes of local clusters, until it is stopped."""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import NOTHING
from imgload.clusters.select import Cluster, find_clusters
from imgload.core.arguments import require_strings
from imgload.core.errors import ImgloadError, UsageError
from imgload.core.parallel import in_parallel
from imgload.engines.base import ContainerHost
from imgload.loader.events import Note
from imgload.loader.session import Session
from imgload.oci.reference import parse_patterns
from imgload.registry.read_server import serving
from imgload.sources.engine import EngineSource
from imgload.tools.remote_registry.configure import NodeWiring
from imgload.tools.serve.cache import BlobCache
from imgload.tools.serve.images import LocalImages
from imgload.tools.serve.nodes import restore, set_up
from imgload.tools.serve.running import Running, claim, stop_running
from imgload.tools.serve.store import NodePull, NodeRequest, NodeStore
from imgload.transports.pull import VM_HOSTS

_TICK_SECONDS = 0.25
_POLL_SECONDS = 5.0
_RETRY_SECONDS = 60.0
_LOOPBACK = "127.0.0.1"


def _names(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(require_strings(values, "names"))


@attrs.frozen
class ServeOptions:
    """The images to serve, and the clusters that get them.

    Args:
        patterns: the names to serve, in which ``*`` matches anything; empty for every name.
        clusters: names of clusters, which may not exist yet; empty for every local cluster.
        source: ``docker``, ``podman`` or an engine's URL; None for every engine.
        pulled: whether to serve images that an engine pulled from the registry in their name.
        restart_containerd: whether containerd may be restarted on nodes that need that.
        cache_size: bytes of blobs to keep on disk.

    """

    patterns: tuple[str, ...] = attrs.field(default=(), converter=_names)
    clusters: tuple[str, ...] = attrs.field(default=(), converter=_names)
    source: str | None = None
    pulled: bool = False
    restart_containerd: bool = False
    cache_size: int = 10 << 30


@attrs.frozen
class NodeReady:
    """The result of setting a node up."""

    wiring: NodeWiring


ServeEvent = NodePull | NodeRequest | NodeReady | Note


@attrs.define
class _Setup:
    """A node that was set up, or failed to be, and is tried again at `retry_at`."""

    node: Node
    secret: str
    error: str = ""
    retry_at: float = 0.0
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    """Held while the node is changed."""


@attrs.define(eq=False, repr=False)
class Serve:
    """A running server, and the nodes that use it; iterate over its events."""

    hosts: Sequence[ContainerHost]
    options: ServeOptions
    store: NodeStore
    _events: queue.SimpleQueue[ServeEvent]
    _secrets: dict[str, str] = attrs.field(factory=dict)
    """The container ID of each node, by the secret in its path."""
    _ports: dict[str, int | None] = attrs.field(factory=dict)
    """The port of the server at each address; None if that is another machine's."""
    _setups: dict[str, _Setup] = attrs.field(factory=dict)
    """By container ID."""
    _servers: ExitStack = attrs.field(factory=ExitStack)
    _trouble: str = ""
    _closing: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @classmethod
    @contextmanager
    def open(
        cls,
        options: ServeOptions,
    ) -> Iterator[Serve]:
        """Serve until the end of the block, and then restore the nodes.

        Raises:
            UsageError: if an option is invalid, or another server runs.
            EngineError: if no engine answers.

        """
        patterns = tuple(parse_patterns(options.patterns))
        source, clusters = options.source, options.clusters
        about = Running(os.getpid(), patterns, clusters, source, options.pulled)
        with claim(about), Session.open(source) as session:
            engines = [s.engine for s in session.sources if isinstance(s, EngineSource)]
            if not engines:
                raise UsageError(f"{source} is not an engine", hint="serve one: --from docker")
            events: queue.SimpleQueue[ServeEvent] = queue.SimpleQueue()
            cache = BlobCache.open(options.cache_size)
            store = NodeStore(LocalImages(engines, cache, patterns, options.pulled), events.put)
            serve = cls(session.engines, options, store, events)
            in_parallel([engine.tidy for engine in engines])
            try:
                serve.restore_others()
                yield serve
            finally:
                serve.close()

    def __iter__(self) -> Iterator[ServeEvent]:
        """Yield events for ever; set nodes up when they appear."""
        about = Running(0, self.options.patterns, pulled=self.options.pulled).describe
        engines = " and ".join(str(e.endpoint) for e in self.store.images.engines)
        yield Note(f"serving {engines}: {about}")
        poll_at = 0.0
        while True:
            if time.monotonic() >= poll_at:
                yield from self._set_up_nodes()
                poll_at = time.monotonic() + _POLL_SECONDS
            try:
                yield self._events.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                yield from self.store.finished_pulls()

    def restore_others(self) -> None:
        """Restore nodes that a killed server has left, as far as they answer."""
        _restore_running(self.hosts)

    def _set_up_nodes(self) -> Iterator[NodeReady | Note]:
        try:
            running = _running_nodes(self.hosts, self.options.clusters)
            nodes = {node.container.id: node for node in running}
        except ImgloadError as error:
            if error.message != self._trouble:
                yield Note(f"cannot list the nodes: {error.message}")
            self._trouble = error.message
            return
        self._trouble = ""
        for gone in self._setups.keys() - nodes.keys():
            del self._secrets[self._setups.pop(gone).secret]
        now = time.monotonic()
        due = [
            node
            for container, node in nodes.items()
            if container not in self._setups or self._setups[container].retry_at <= now
        ]
        for wiring in in_parallel([partial(self._set_up, node) for node in due]) if due else ():
            if wiring:
                yield NodeReady(wiring)

    def _set_up(self, node: Node) -> NodeWiring | None:
        """Set a node up; return None for a failure that only repeats."""
        container = node.container.id
        setup = self._setups.setdefault(container, _Setup(node, secrets.token_hex(16)))
        self._secrets[setup.secret] = container
        with setup.lock:
            if self._closing:
                return None
            try:
                platform = node.survey(NOTHING).traits.platform
                self.store.nodes[container] = node.name, platform
                urls, restart = self._urls(node, setup.secret), self.options.restart_containerd
                wiring = set_up(node, urls, self.store.was_asked, restart=restart)
            except ImgloadError as error:
                wiring = NodeWiring(node.name, error=error)
        before, setup.error = setup.error, wiring.error.message if wiring.error else ""
        setup.retry_at = time.monotonic() + _RETRY_SECONDS if setup.error else float("inf")
        return None if setup.error and setup.error == before else wiring

    def _urls(self, node: Node, secret: str) -> list[str]:
        """Serve on the addresses of this machine that a node may reach, and return them."""
        addresses = {gateway: gateway for gateway in node.gateways}
        if node.engine.endpoint.local:
            addresses |= dict.fromkeys(VM_HOSTS, _LOOPBACK)
        pairs = [(host, self._port(address)) for host, address in addresses.items()]
        return [f"http://{host}:{port}/v2/{secret}" for host, port in pairs if port]

    def _port(self, address: str) -> int | None:
        with self._lock:
            if address not in self._ports:
                server = serving(address, self.store, self._secrets, self.store.count)
                try:
                    self._ports[address] = self._servers.enter_context(server)
                except OSError:
                    self._ports[address] = None
            return self._ports[address]

    def close(self) -> None:
        """Restore the nodes, and end the server."""
        self._closing = True
        try:
            in_parallel([partial(_restore, setup) for setup in self._setups.values()])
        finally:
            self.store.images.close()
            self._servers.close()


def _restore(setup: _Setup) -> None:
    with setup.lock:
        restore(setup.node)


def _running_nodes(hosts: Sequence[ContainerHost], clusters: Sequence[str] = ()) -> list[Node]:
    """Return the running nodes of these clusters, or of all."""
    return [
        node
        for cluster in find_clusters(hosts)
        if not clusters or _is_named(cluster, clusters)
        for node in cluster.nodes
        if isinstance(node, Node) and node.container.state == "running"
    ]


def _is_named(cluster: Cluster, names: Sequence[str]) -> bool:
    return not {cluster.name, *cluster.tool.contexts(cluster.name)}.isdisjoint(names)


def _restore_running(hosts: Sequence[ContainerHost]) -> list[NodeWiring]:
    return in_parallel([partial(restore, node) for node in _running_nodes(hosts)])


def stop() -> tuple[bool, list[NodeWiring]]:
    """End the running server, and restore every node; return whether one ran, and the results."""
    was_running = stop_running()
    with Session.open() as session:
        return was_running, _restore_running(session.engines)
