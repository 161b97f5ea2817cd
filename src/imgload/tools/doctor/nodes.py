"""Whether each node can take images, and its pods can use them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import partial

from imgload.clusters.nodes.containerd import DEFAULT_SNAPSHOTTER
from imgload.clusters.nodes.node import Node
from imgload.core.errors import ImgloadError
from imgload.core.sizes import size_text
from imgload.engines.base import About
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.health import Health, look
from imgload.tools.doctor.proxies import check_proxies
from imgload.tools.doctor.timeouts import answers

SECONDS = 10.0
"""For all nodes to answer."""
LITTLE = 2 << 30
NOTHING_LEFT = 100 << 20
_LITTLE_PART = 0.05
_SNAPSHOTTER = "io.containerd.snapshotter.v1"
_CRI = ("io.containerd.grpc.v1", "cri")


def check_nodes(nodes: Sequence[Node], hosts: dict[str, About]) -> Iterator[Finding]:
    """Yield what each node is like, and what is wrong with it.

    Args:
        nodes: to ask.
        hosts: what the engines that run them say of themselves, by address.

    """
    found = answers([partial(look, node) for node in nodes], SECONDS)
    for node, health in zip(nodes, found, strict=True):
        if isinstance(health, ImgloadError):
            yield _silent(node, health)
        else:
            yield _summary(node, health)
            yield from _wrong(node, health, hosts.get(node.engine.endpoint.url))


def _silent(node: Node, error: ImgloadError) -> Finding:
    named = (
        error.message if error.message.startswith(node.name) else f"{node.name}: {error.message}"
    )
    restart = f"{node.engine.name} restart {node.container.name}"
    return Finding("nodes", "problem", named, error.hint or restart)


def _summary(node: Node, health: Health) -> Finding:
    traits = health.traits
    told = [
        f"containerd {'.'.join(map(str, traits.version))}",
        traits.snapshotter,
        str(traits.platform),
        f"{size_text(health.space[1])} free" if health.space else "",
        "crictl" if health.crictl else "",
    ]
    return Finding("nodes", "ok", f"{node.name}: {', '.join(filter(None, told))}")


def _wrong(node: Node, health: Health, host: About | None) -> Iterator[Finding]:
    yield from _plugins(node, health)
    yield from _space(node, health)
    yield from _architecture(node, health, host)
    yield from check_proxies(node.name, health.proxies, health.mirrors)
    if not health.crictl:
        what = f"{node.name} has no crictl: what CRI has cannot be asked, containerd is believed"
        yield Finding("nodes", "info", what)
    if health.traits.snapshotter != DEFAULT_SNAPSHOTTER:
        used = health.traits.snapshotter
        what = f"{node.name} unpacks with {used}, where ctr alone takes {DEFAULT_SNAPSHOTTER}"
        by_hand = f"by hand: ctr -n k8s.io images import --snapshotter={shlex.quote(used)} FILE"
        yield Finding("nodes", "info", f"{what}; imgload knows", by_hand)


def _plugins(node: Node, health: Health) -> Iterator[Finding]:
    if not health.plugins:
        return
    used = health.traits.snapshotter
    for key, what in ((_CRI, "CRI"), ((_SNAPSHOTTER, used), f"the snapshotter {used}")):
        state = health.plugins.get(key, "not there")
        if state != "ok":
            wrong = f"{node.name}: {what} is {state} in containerd, so that no pod can run"
            see = f"ctr plugins ls -d {shlex.quote(f'id=={key[1]}')}"
            yield Finding(
                "nodes", "problem", wrong, f"see why: {node.engine.name} exec {node.name} {see}"
            )


def _space(node: Node, health: Health) -> Iterator[Finding]:
    if health.space is None:
        return
    total, free = health.space
    if free >= LITTLE and free >= total * _LITTLE_PART:
        return
    what = f"{node.name} has {size_text(free)} of {size_text(total)} left for images"
    see = f"see what fills it: {node.engine.name} system df"
    full = free < NOTHING_LEFT
    yield Finding("nodes", "problem" if full else "warning", what, see)


def _architecture(node: Node, health: Health, host: About | None) -> Iterator[Finding]:
    machine = host.platform if host else None
    if machine and not machine.runs(health.traits.platform):
        own = health.traits.platform
        what = f"{node.name} is {own} on a {machine} machine: all of it is emulated"
        yield Finding("nodes", "warning", what, f"make the cluster of a node image for {machine}")
