"""Run all checks, from the engines to the pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

from imgload.core.arguments import optional_string, require_string, require_strings
from imgload.core.errors import ImgloadError
from imgload.core.parallel import call_each
from imgload.engines.base import Engine, EngineDescription
from imgload.engines.discovery.discover import connect
from imgload.tools.doctor.clusters import Selection, check_context, select
from imgload.tools.doctor.engines import SECONDS, check_engines, check_receivers, find_engines
from imgload.tools.doctor.finding import Diagnosis, Finding
from imgload.tools.doctor.image import check_name, find_in_engines, name_of
from imgload.tools.doctor.nodes import check_nodes
from imgload.tools.doctor.pods import check_pods
from imgload.tools.doctor.skaffold import check_skaffold
from imgload.tools.doctor.trace import check_chain


def diagnose(
    image: str | None = None, *, cluster: str | None = None, nodes: Sequence[str] = ()
) -> Diagnosis:
    """Check everything between the engines and the nodes, without changing anything.

    Args:
        image: a name or image ID to follow from the engine to CRI's answer; None for none.
        cluster: the cluster's name; None for the kube context's, or the only one.
        nodes: names of the nodes to check; empty for all nodes of the cluster.

    Returns:
        the findings; a problem is a finding and raises nothing.

    Raises:
        ReferenceInvalid: when `image` is neither a name nor an image ID.

    """
    cluster, nodes = optional_string(cluster, "cluster"), require_strings(nodes, "nodes")
    if image is not None:
        name_of(image := require_string(image, "image"))
    with ExitStack() as stack:
        return Diagnosis(tuple(_findings(stack, image, cluster, nodes)))


def _findings(
    stack: ExitStack, image: str | None, cluster: str | None, nodes: Sequence[str]
) -> Iterator[Finding]:
    discovery, invalid = find_engines()
    yield from invalid
    engines = [stack.enter_context(closing(connect(e))) for e in discovery.endpoints]
    abouts = dict(call_each(lambda engine: engine.description(), engines, SECONDS))
    yield from check_engines(discovery, {e.endpoint: about for e, about in abouts.items()})
    working = [e for e, about in abouts.items() if not isinstance(about, ImgloadError)]
    yield from check_receivers(working)
    selection = select(working, cluster, nodes)
    decides = cluster is None and not nodes
    yield from check_context(selection.engines, selection.clusters, decides=decides)
    yield from selection.findings
    hosts = {
        e.endpoint.url: about for e, about in abouts.items() if isinstance(about, EngineDescription)
    }
    yield from check_nodes(selection.nodes, hosts)
    yield from check_skaffold(discovery)
    if image is not None:
        yield from _image(image, working, selection)


def _image(image: str, engines: Sequence[Engine], selection: Selection) -> Iterator[Finding]:
    findings, wanted = find_in_engines(image, engines)
    yield from check_name(image, wanted.name)
    yield from findings
    yield from check_chain(wanted, selection.nodes)
    names = {node.name for node in selection.nodes}
    contexts = {c.context for c in selection.clusters if names & {n.name for n in c.nodes}}
    if len(contexts) == 1:
        yield from check_pods(wanted.name, contexts.pop())
