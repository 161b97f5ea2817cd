"""Run all checks, from the engines to the pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

from imgload.core.arguments import require_string, require_strings
from imgload.core.parallel import call_each
from imgload.engines.base import EngineDescription
from imgload.engines.discovery.discover import connect
from imgload.tools.doctor.clusters import check_skaffold, select_for_checks
from imgload.tools.doctor.engines import SECONDS, check_engines, check_receivers, find_engines
from imgload.tools.doctor.finding import Diagnosis, Finding
from imgload.tools.doctor.image import check_image, name_of
from imgload.tools.doctor.nodes import check_nodes
from imgload.tools.doctor.serve import check_serve


def diagnose(
    image: str | None = None,
    *,
    cluster: str | Sequence[str] | None = None,
    nodes: str | Sequence[str] = (),
    address: str | None = None,
) -> Diagnosis:
    """Check everything between the engines and the nodes, without changing anything.

    Args:
        image: a name or image ID to follow from the engine to CRI's answer; None for none.
        cluster: the cluster's name, or several; None for the kube context's, or the only one.
        nodes: names of the nodes to check; empty for all nodes of the cluster.
        address: the path of containerd's socket on the nodes; None to find it.

    Returns:
        the findings; a problem is a finding and raises nothing.

    Raises:
        ReferenceInvalid: when `image` is neither a name nor an image ID.
        UsageError: when `address` is not the path of a socket.

    """
    nodes = require_strings(nodes, "nodes")
    clusters = () if cluster is None else require_strings(cluster, "cluster")
    if image is not None:
        name_of(image := require_string(image, "image"))
    with ExitStack() as stack:
        return Diagnosis(tuple(_findings(stack, image, clusters, nodes, address)))


def _findings(
    stack: ExitStack,
    image: str | None,
    wanted: Sequence[str],
    names: Sequence[str],
    address: str | None,
) -> Iterator[Finding]:
    discovery, invalid = find_engines()
    yield from invalid
    engines = [stack.enter_context(closing(connect(e))) for e in discovery.endpoints]
    abouts = call_each(lambda engine: engine.description(), engines, SECONDS)
    yield from check_engines(discovery, {engine.endpoint: about for engine, about in abouts})
    working = [engine for engine, about in abouts if isinstance(about, EngineDescription)]
    hosts = {e.endpoint: about for e, about in abouts if isinstance(about, EngineDescription)}
    yield from check_receivers(working)
    findings, clusters, nodes = select_for_checks(working, wanted, names, address)
    yield from findings
    yield from check_nodes(nodes, hosts)
    yield from check_skaffold(discovery)
    server = yield from check_serve(image, working)
    if image is not None:
        served = [c for c in clusters if server and c.is_named(server.clusters or {c.name})]
        pulling = {node.name for cluster in served for node in cluster.nodes}
        yield from check_image(image, working, clusters, nodes, pulling)
