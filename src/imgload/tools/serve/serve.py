"""Serve the images of the local engines to the nodes of local clusters, until it is stopped."""

from __future__ import annotations

import os
import queue
import secrets
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import attrs

from imgload.clusters.cluster import Member, find_clusters
from imgload.clusters.nodes.node import Node, containerd_nodes, is_containerd_node
from imgload.clusters.nodes.survey import NOTHING
from imgload.core.arguments import require_strings
from imgload.core.errors import ImgloadError, NodeUnusable, UsageError
from imgload.core.parallel import in_parallel, result_or_error
from imgload.engines.base import ContainerHost, Engine
from imgload.engines.discovery.discover import Discovery, connect, rediscover
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
from imgload.tools.serve.store import NodePull, NodeStore
from imgload.transports.pull import VM_HOSTS

_TICK_SECONDS = 0.25
_POLL_SECONDS = 5.0
_MOST_RETRY_SECONDS = 60.0
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


ServeEvent = NodePull | NodeReady | Note


@attrs.define
class _Setup:
    """A node that was set up, or failed to be, and is tried again at `retry_at`."""

    member: Member
    secret: str
    node: Node | None = None
    can_pull: bool = True
    """Whether it has containerd, as far as known: the runtime of a node does not change."""
    error: str = ""
    retry_at: float = 0.0
    retry_seconds: float = _POLL_SECONDS
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    """Held while the node is changed."""


@attrs.define(eq=False, repr=False)
class Serve:
    """A running server, and the nodes that use it; iterate over its events."""

    options: ServeOptions
    _about: Running
    store: NodeStore
    hosts: Sequence[Engine]
    """The engines that may run nodes."""
    _discovery: Discovery
    _events: queue.SimpleQueue[ServeEvent]
    _secrets: dict[str, str] = attrs.field(factory=dict)
    """The container ID of each node, by the secret in its path."""
    _ports: dict[str, int | None] = attrs.field(factory=dict)
    """The port of the server at each address; None if that is another machine's."""
    _setups: dict[str, _Setup] = attrs.field(factory=dict)
    """By container ID."""
    _servers: ExitStack = attrs.field(factory=ExitStack)
    _failing: set[str] = attrs.field(factory=set)
    """The addresses of the engines that did not list their nodes at the last attempt."""
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
            serve = cls(options, about, store, session.engines, session.discovery, events)
            in_parallel([engine.tidy for engine in engines])
            try:
                _restore_running(session.engines)  # which a killed server has left
                yield serve
            finally:
                serve.close()

    def __iter__(self) -> Iterator[ServeEvent]:
        """Yield events for ever; set nodes up when they appear."""
        engines = " and ".join(str(e.endpoint) for e in self.store.images.engines)
        yield Note(f"serving {engines}: {self._about.describe}")
        poll_at = 0.0
        while True:
            if time.monotonic() >= poll_at:
                yield from self._add_engines()
                yield from self._set_up_nodes()
                poll_at = time.monotonic() + _POLL_SECONDS
            try:
                yield self._events.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                yield from self.store.finished_pulls()

    def _add_engines(self) -> Iterator[Note]:
        """Use the engines that have started since the last attempt, unless the user named one."""
        if "://" in (self.options.source or ""):
            return
        earlier, self._discovery = self._discovery, rediscover(self._discovery)
        for endpoint in set(self._discovery.endpoints).difference(earlier.endpoints):
            engine = self._servers.enter_context(closing(connect(endpoint)))
            engine.tidy()
            self.hosts = [*self.hosts, engine]
            if self.options.source in {None, endpoint.kind}:
                self.store.images.engines = [*self.store.images.engines, engine]
                yield Note(f"also serving {endpoint}")

    def _set_up_nodes(self) -> Iterator[NodeReady | Note]:
        clusters = self.options.clusters
        listings = [partial(_running_members, [host], clusters) for host in self.hosts]
        answers = in_parallel([partial(result_or_error, listing) for listing in listings])
        members: dict[str, Member] = {}
        for host, answer in zip(self.hosts, answers, strict=True):
            if isinstance(answer, ImgloadError):
                if host.endpoint.url not in self._failing:
                    yield Note(f"cannot list the nodes: {answer.message}")
                self._failing.add(host.endpoint.url)
                continue
            members |= {member.node.container.id: member for member in answer}
            if host.endpoint.url in self._failing:
                self._failing.remove(host.endpoint.url)
                yield Note(f"{host.endpoint} answers again")
                self._engine_is_back(host)
        for container, setup in [*self._setups.items()]:
            if container not in members and setup.member.engine.endpoint.url not in self._failing:
                del self._setups[container], self._secrets[setup.secret]
        now = time.monotonic()
        due = [
            member
            for container, member in members.items()
            if container not in self._setups or self._setups[container].retry_at <= now
        ]
        wirings = in_parallel([partial(self._set_up, member) for member in due]) if due else []
        self._require_node_that_pulls()
        yield from (NodeReady(wiring) for wiring in wirings if wiring)

    def _require_node_that_pulls(self) -> None:
        """Raise NodeUnusable if all named clusters run, and none of their nodes has containerd."""
        members = [setup.member for setup in self._setups.values()]
        running = {member.node.cluster: member.tool for member in members}
        names = {
            name for cluster, tool in running.items() for name in (cluster, *tool.contexts(cluster))
        }
        wanted = self.options.clusters
        if (
            wanted
            and names.issuperset(wanted)
            and not any(s.can_pull for s in self._setups.values())
        ):
            nodes = ", ".join(member.name for member in members)
            clusters = " ".join(f"-c {shlex.quote(name)}" for name in wanted)
            raise NodeUnusable(
                f"no node can pull from imgload, because none runs containerd: {nodes}",
                hint=f"load each new build instead: imgload watch {clusters} '*'",
            )

    def _engine_is_back(self, engine: Engine) -> None:
        """Remove temporary tags of interrupted pushes, and set the nodes up again.

        They may have restarted with it; k3s then writes its hosts.toml files again.
        """
        engine.tidy()
        for setup in self._setups.values():
            if setup.member.engine is engine:
                setup.retry_at = 0.0

    def _set_up(self, member: Member) -> NodeWiring | None:
        """Set a node up; return None for a failure that only repeats."""
        container = member.node.container.id
        setup = self._setups.setdefault(container, _Setup(member, secrets.token_hex(16)))
        self._secrets[setup.secret] = container
        with setup.lock:
            if self._closing:
                return None
            try:
                opened = member.open()
                setup.can_pull = opened.runtime_name in {"", Node.runtime_name}
                [setup.node] = [node] = containerd_nodes([opened])
                platform = node.survey(NOTHING).traits.platform
                self.store.nodes[container] = node.name, platform
                urls, restart = self._urls(node, setup.secret), self.options.restart_containerd
                wiring = set_up(node, urls, self.store.was_asked, restart=restart)
            except ImgloadError as error:
                wiring = NodeWiring(member.name, error=error)
        before, setup.error = setup.error, wiring.error.message if wiring.error else ""
        if setup.error:  # soon at first: containerd starts after its node
            setup.retry_at = time.monotonic() + setup.retry_seconds
            setup.retry_seconds = min(setup.retry_seconds * 2, _MOST_RETRY_SECONDS)
        else:
            setup.retry_at, setup.retry_seconds = float("inf"), _POLL_SECONDS
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
                store = self.store
                server = serving(address, store, self._secrets, store.count, store.name_of)
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
        if setup.node:
            restore(setup.node)


def _running_members(hosts: Sequence[ContainerHost], clusters: Sequence[str] = ()) -> list[Member]:
    """Return the running nodes of these clusters, or of all."""
    return [
        member
        for cluster in find_clusters(hosts)
        if not clusters or cluster.is_named(clusters)
        for member in cluster.members
        if member.node.container.state == "running"
        if member.engine.endpoint.kind != "ssh"  # nothing is served to other machines
    ]


def _restore_running(hosts: Sequence[ContainerHost]) -> list[NodeWiring]:
    nodes = in_parallel([member.open for member in _running_members(hosts)])
    return in_parallel([partial(restore, node) for node in nodes if is_containerd_node(node)])


def stop() -> tuple[bool, list[NodeWiring]]:
    """End the running server, and restore every node; return whether one ran, and the results."""
    was_running = stop_running()
    with Session.open() as session:
        return was_running, _restore_running(session.engines)
