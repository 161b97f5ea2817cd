"""Follow an image from the engines over the nodes to the pods, and report the first broken link.

The kubelet asks CRI for the name. CRI knows it when containerd has a record of that name, its
manifest and config, and its layers are unpacked in CRI's snapshotter.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import attrs

from imgload.clusters.cluster import Cluster
from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.proof import ExpectedImage, prove
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core.errors import ImgloadError, NodeNotRunning, NotVerified, ReferenceInvalid
from imgload.core.parallel import call_each
from imgload.engines.base import Engine
from imgload.engines.discovery.candidates import Attempt
from imgload.engines.discovery.discover import connect, discover
from imgload.loader.verify import has_another, lacks, unknown_to_cri
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.reference import Reference, image_id_prefix, is_full_image_id, parse_unless_id
from imgload.sources.base import Image
from imgload.sources.engine import EngineSource
from imgload.sources.locate import ambiguous, named
from imgload.tools.doctor.finding import Finding, Status

_ENGINE_SECONDS = 5.0
_NODE_SECONDS = 10.0
_KUBECTL_SECONDS = 2.0
_LIBRARY = "docker.io/library/"
_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_MOST_PODS = 5


def name_of(text: str) -> str:
    """Return a name as the kubelet resolves it, or an image ID; else raise ReferenceInvalid."""
    name = parse_unless_id(text)
    return name.record if name else text


def check_image(
    text: str,
    engines: Sequence[Engine],
    clusters: Sequence[Cluster],
    nodes: Sequence[NodeRuntime],
    pulling: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield the findings about an image: its name, its engine, each node, and waiting pods.

    The nodes in `pulling` get the image from a running `imgload serve` when a pod needs it.
    """
    findings, image = find_in_engines(text, engines)
    name = image.name if image else name_of(text)
    yield from _name(text, name, served=bool(pulling))
    yield from findings
    load = f"imgload load {shlex.quote(text)} --node"
    load = load if image else f"once an engine has it: {load}"
    for node, result in call_each(partial(_trace, name, image, pulling), nodes, _NODE_SECONDS):
        if isinstance(result, NotVerified):
            yield Finding("image", "problem", result.message, f"{load} {node.name}")
        elif isinstance(result, ImgloadError):
            what = f"cannot check {name}: {result.message}"
            is_counted = isinstance(result, NodeNotRunning)  # by the check of the nodes
            yield Finding("image", "info" if is_counted else "problem", what, result.hint)
        else:
            yield from result
    names = {node.name for node in nodes}
    contexts = {c.context for c in clusters if names & {name for name, _ in c.candidates}}
    if len(contexts) == 1:
        yield from _pods(name, contexts.pop())


def _name(text: str, name: str, *, served: bool) -> Iterator[Finding]:
    """Yield how the kubelet resolves the user's text, and whether it always pulls that name."""
    if is_full_image_id(name):
        return
    if name != text:
        means = "is" if image_id_prefix(text) else "in a pod spec means"
        yield Finding("image", "info", f"{text!r} {means} {name}")
    if Reference.parse(name).pulls_always and not served:
        what = f"the kubelet pulls {name} each time, even if the node has it"
        fix = "set imagePullPolicy: IfNotPresent in the pod spec; or use a tag other than latest"
        yield Finding("image", "warning", what, fix)


def find_in_engines(text: str, engines: Sequence[Engine]) -> tuple[list[Finding], Image | None]:
    """Return the findings, and the image; None if no engine has it, or two have different ones."""
    sources = [EngineSource(engine) for engine in engines]
    findings: list[Finding] = []
    images: list[Image] = []
    for source, result in call_each(partial(_find, text), sources, _ENGINE_SECONDS):
        if isinstance(result, ImgloadError):
            findings.append(Finding.of("image", result))
        elif result:
            image_id = result.image_id
            short = f"image {image_id.short}" if image_id else result.target.short
            what = f"{source.describe} has {text}: {short}, {result.platform}"
            findings.append(Finding("image", "ok", what))
            images.append(result)
    if not images:
        return [*findings, *_not_found(text, sources)], None
    if len({image.image_id or image.target for image in images}) > 1:
        return [*findings, Finding.of("image", ambiguous(text, images))], None
    return findings, named(images[:1], None)[0]


def _find(text: str, source: EngineSource) -> Image | None:
    try:
        image = source.find(text, None)
        return source.identify(image) if image else None
    finally:
        source.release()


def _not_found(text: str, sources: Sequence[EngineSource]) -> Iterator[Finding]:
    """Yield that no engine has the image, and the engines that have it but are not used."""
    if not sources:
        yield Finding("image", "problem", f"no engine can be queried for {text!r}")
        return
    places = " and ".join(source.describe for source in sources)
    build = f"{sources[0].engine.name} build -t {shlex.quote(text)} ."
    hint = f"list images with: {sources[0].listing}; or build it: {build}"
    yield Finding("image", "problem", f"no image {text!r} in {places}", hint)
    try:
        attempts = discover(everything=True).attempts
    except ImgloadError:
        return
    unused = [attempt for attempt in attempts if attempt.skip_reason and attempt.endpoint]
    for attempt, has_image in call_each(partial(_has, text), unused, _ENGINE_SECONDS):
        if has_image is True:
            what = f"{attempt.endpoint} has it but is not used: {attempt.skip_reason}"
            load = shlex.join(["imgload", "load", text, "--from", attempt.resolved_endpoint.url])
            yield Finding("image", "info", what, load)


def _has(text: str, attempt: Attempt) -> bool:
    with closing(connect(attempt.resolved_endpoint)) as engine:
        return EngineSource(engine).find(text, None) is not None


def _trace(
    name: str, image: Image | None, pulling: Collection[str], node: NodeRuntime
) -> list[Finding]:
    """Return that a node has the whole image; raise NotVerified with the first broken link."""
    # Podman names local builds localhost/NAME, which is another image to a pod.
    podman = (f"localhost/{name.removeprefix(_LIBRARY)}",) if name.startswith(_LIBRARY) else ()
    image_id = image.image_id if image else None
    query = SurveyQuery((name, *podman), (image_id,) if image_id else ())
    survey = node.survey(query)
    target = survey.records.get(name)
    if target is None and node.name in pulling:
        source = "a pod gets it from imgload serve, if that has set up the node"
        return [Finding("image", "info", f"{node.name} {lacks(name)}; {source}")]
    configs = survey.content.configs_under(target) if target else frozenset()
    if configs and image_id is None:
        image_id = min(configs)
        survey = node.survey(attrs.evolve(query, image_ids=(image_id,)))
    config = survey.configs.get(image_id) if image_id else None
    own = config.diff_ids if config else ()
    expected = ExpectedImage(name, image_id, image.diff_ids if image else own)
    broken_link = _broken_link(expected, survey, node)
    if broken_link or not config:
        raise NotVerified(f"{node.name} {broken_link}")
    return list(_whole(expected, config, survey, node))


def _whole(
    expected: ExpectedImage, config: ImageConfig, survey: Survey, node: NodeRuntime
) -> Iterator[Finding]:
    name = expected.name
    cri = "known to CRI" if survey.cri else "no crictl to ask CRI with"
    what = f"{node.name} has {name}: image {config.digest.short}, unpacked, {cri}"
    yield Finding("image", "ok", what)
    if warning := node.refusal_warning(survey.traits, name, config.digest):
        yield Finding("image", "warning", *warning)
    if reason := prove(expected, survey).partial_reason:
        load = shlex.join(["imgload", "load", name, "--node", node.name, "--complete"])
        what = f"{node.name}: {reason}; containers do not need that"
        yield Finding("image", "info", what, f"to push or export it from the node: {load}")
    if mismatch := node.platform_mismatch(survey.traits, name, config.platform):
        status: Status = "info" if mismatch.emulated else "problem"
        yield Finding("image", status, mismatch.text, mismatch.hint)


def _broken_link(expected: ExpectedImage, survey: Survey, node: NodeRuntime) -> str:
    """Return the first check of the proof that fails; empty if none does."""
    name, image_id, proof = expected.name, expected.image_id, prove(expected, survey)
    target = survey.records.get(name)
    if target is None:
        others = [other for other in survey.records if other != name]
        differs = f"; it has {others[0]}, which is a different name to a pod" if others else ""
        text = f"{lacks(name)}{differs}"
    elif not image_id or not proof.image_id:
        configs = survey.content.configs_under(target) - {image_id}
        text = f"has {name} but lacks its manifest {target.short}"
        if image_id and configs:
            text = has_another(name, configs, image_id.short)
    elif image_id not in survey.configs:
        text = f"has {name} but cannot read its config {image_id.short}"
    elif not proof.name:
        text = f"has {target.short} under {name}, which is not the requested manifest"
    elif not proof.diff_ids:
        text = has_another(name, [image_id], "the engine's image")
    elif not proof.unpacked:
        text = _not_unpacked(name, survey.configs[image_id].chain_id, survey, node)
    elif proof.cri is False:
        node.require_cri(survey, name)
        text = unknown_to_cri(name)
        if (answer := survey.cri.get(name)) and answer.image_id:
            text = f"has {name} as {image_id.short}, but its CRI has another image of that name"
    else:
        text = ""
    return text


def _not_unpacked(name: str, chain_id: Digest | None, survey: Survey, node: NodeRuntime) -> str:
    used, usual = survey.traits.snapshotter, containerd.DEFAULT_SNAPSHOTTER
    text = f"has {name}, but its layers are not unpacked in CRI's snapshotter, {used}"
    if used == usual or not isinstance(node, Node):
        return text
    snapshots = node.run(containerd.snapshots_command(usual)).decode(errors="replace")
    elsewhere = chain_id in containerd.parse_snapshots(snapshots)
    return f"{text}; they are in {usual}, which ctr and `kind load` use" if elsewhere else text


def _pods(name: str, context: str) -> Iterator[Finding]:
    """Yield the pods that wait for an image; nothing if no cluster answers within 2 seconds."""
    query = f"get pods --all-namespaces --output=json --request-timeout={_KUBECTL_SECONDS:.0f}s"
    command = ["kubectl", f"--context={context}", *query.split()]
    try:
        done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            command,
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=_KUBECTL_SECONDS,
        )
        pods = list(json.loads(done.stdout)["items"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, RecursionError):
        return
    findings = [finding for pod in pods for finding in _waiting(pod, name)]
    yield from findings[:_MOST_PODS]
    if len(findings) > _MOST_PODS:
        yield Finding("pods", "info", f"{len(findings) - _MOST_PODS} more pods wait for {name}")


def _waiting(pod: Any, name: str) -> Iterator[Finding]:
    with suppress(KeyError, TypeError, AttributeError):
        status, spec, metadata = pod["status"], pod["spec"], pod["metadata"]
        reasons = {
            state["name"]: ((state.get("state") or {}).get("waiting") or {}).get("reason")
            for kind in ("containerStatuses", "initContainerStatuses")
            for state in status.get(kind) or ()
        }
        namespace, pod_name = str(metadata["namespace"]), str(metadata["name"])
        restart = f"kubectl -n {shlex.quote(namespace)} delete pod {shlex.quote(pod_name)}"
        load = f"imgload load {shlex.quote(name)}, then: {restart}"
        for container in [*spec["containers"], *(spec.get("initContainers") or ())]:
            reason = reasons.get(container["name"])
            if reason in _REASONS and _is_called(container["image"], name):
                policy = container.get("imagePullPolicy")
                where = f"pod {namespace}/{pod_name} on {spec.get('nodeName') or 'its node'}"
                what = f"{where}: {reason}, with imagePullPolicy {policy}"
                fix = "set imagePullPolicy: IfNotPresent to use the image on the node; "
                yield Finding("pods", "problem", what, fix + load if policy == "Always" else load)


def _is_called(text: str, name: str) -> bool:
    with suppress(ReferenceInvalid):
        return Reference.parse(text).record == name
    return False
