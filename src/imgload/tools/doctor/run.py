"""The whole examination, area by area, from the engines to the pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from imgload.core.errors import ImgloadError
from imgload.engines.base import About, Engine
from imgload.engines.discovery.discover import connect
from imgload.oci.reference import string, string_or_none, strings
from imgload.tools.doctor import clusters as areas
from imgload.tools.doctor import receiver
from imgload.tools.doctor.context import check_context
from imgload.tools.doctor.engines import SECONDS, check_engines, find_engines
from imgload.tools.doctor.finding import Diagnosis, Finding
from imgload.tools.doctor.image import check_engines_for, check_name, name_of
from imgload.tools.doctor.nodes import check_nodes
from imgload.tools.doctor.pods import check_pods
from imgload.tools.doctor.skaffold import check_skaffold
from imgload.tools.doctor.timeouts import answers
from imgload.tools.doctor.trace import check_chain


def examine(
    image: str | None = None, *, cluster: str | None = None, nodes: Sequence[str] = ()
) -> Diagnosis:
    """Look at everything between the engines and the nodes, and change nothing.

    Args:
        image: a name or image ID, to follow from the engine to CRI's answer; None for none.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes to look at; empty for all of the cluster.

    Returns:
        what was found. What is wrong is a finding, and raises nothing.

    Raises:
        ReferenceInvalid: when the image's name is none.

    """
    cluster, nodes = string_or_none(cluster, "cluster"), strings(nodes, "nodes")
    if image is not None:
        name_of(image := string(image, "image"))
    with ExitStack() as stack:
        return Diagnosis(tuple(_examined(stack, image, cluster, nodes)))


def _examined(
    stack: ExitStack, image: str | None, cluster: str | None, nodes: Sequence[str]
) -> Iterator[Finding]:
    found, wrong = find_engines()
    yield from wrong
    engines = [_opened(connect(endpoint), stack) for endpoint in found.endpoints]
    told = answers([engine.about for engine in engines], SECONDS)
    yield from check_engines(found, {e.endpoint: t for e, t in zip(engines, told, strict=True)})
    well = [e for e, t in zip(engines, told, strict=True) if not isinstance(t, ImgloadError)]
    yield from _receivers(well)
    there = areas.find(well, cluster, nodes)
    named = cluster is not None or bool(nodes)
    yield from check_context(there.engines, there.found, counts=not named)
    yield from there.findings
    hosts = {e.endpoint.url: t for e, t in zip(engines, told, strict=True) if isinstance(t, About)}
    yield from check_nodes(there.nodes, hosts)
    yield from check_skaffold(found)
    if image is not None:
        yield from _followed(image, well, there)


def _opened(engine: Engine, stack: ExitStack) -> Engine:
    stack.callback(engine.close)
    return engine


def _receivers(engines: Sequence[Engine]) -> Iterator[Finding]:
    calls = [partial(receiver.reaches_us, engine) for engine in engines]
    reached = answers(calls, receiver.SECONDS + 1)
    for engine, result in zip(engines, reached, strict=True):
        yield from receiver.check_receiver(engine.endpoint, reached=result)


def _followed(image: str, engines: Sequence[Engine], there: areas.Clusters) -> Iterator[Finding]:
    """Yield the chain of an image, from the engines to the pods."""
    findings, wanted = check_engines_for(image, engines)
    yield from check_name(image, wanted.name)
    yield from findings
    yield from check_chain(wanted, there.nodes)
    meant = {node.name for node in there.nodes}
    contexts = {c.context for c in there.found if meant & {n.name for n in c.nodes}}
    if len(contexts) == 1:
        yield from check_pods(wanted.name, contexts.pop())
