"""Follow an image's name on a node to CRI's answer, and report the first broken link.

The kubelet asks CRI for the name. CRI knows it when containerd has a record of that name, its
manifest and config, and its layers are unpacked in CRI's snapshotter.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import partial

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core.errors import ImgloadError
from imgload.core.parallel import call_each
from imgload.loader.proof import Expected, ExpectedImage, prove
from imgload.loader.verify import has_another, lacks, unknown_to_cri
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.image import Wanted

_SECONDS = 10.0
_LIBRARY = "docker.io/library/"


def check_chain(wanted: Wanted, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Yield for each node that it has the whole image, or the first broken link."""
    for _, result in call_each(partial(_trace, wanted), nodes, _SECONDS):
        if isinstance(result, ImgloadError):
            what = f"cannot check {wanted.name}: {result.message}"
            yield Finding("image", "problem", what, result.hint)
        else:
            yield from result


def _trace(wanted: Wanted, node: Node) -> list[Finding]:
    name, image_id = wanted.name, wanted.image_id
    # Podman names local builds localhost/NAME, which is another image to a pod.
    podman = (f"localhost/{name.removeprefix(_LIBRARY)}",) if name.startswith(_LIBRARY) else ()
    question = SurveyQuery((name, *podman), (image_id,) if image_id else ())
    survey = node.survey(question)
    target = survey.records.get(name)
    configs = survey.content.configs_under(target) if target else frozenset()
    if configs and image_id is None:
        image_id = min(configs)
        survey = node.survey(attrs.evolve(question, image_ids=(image_id,)))
    config = survey.configs.get(image_id) if image_id else None
    if target is None:
        text = f"{lacks(name)}{_other_name(wanted, survey)}"
    elif not image_id or not configs:
        text = f"has {name} but lacks its manifest {target.short}"
    elif image_id not in configs:
        text = has_another(name, configs, image_id.short)
    elif config is None:
        text = f"has {name} but cannot read its config {image_id.short}"
    else:
        own = ExpectedImage(name, image_id, config.diff_ids)
        image = attrs.evolve(wanted.image or own, image_id=image_id)
        text = _disproof(image, config, survey, node)
        if not text:
            return list(_whole(name, config, survey, node))
    load = f"imgload load {shlex.quote(wanted.query)} --node {node.name}"
    hint = load if wanted.image else f"once an engine has it: {load}"
    return [Finding("image", "problem", f"{node.name} {text}", hint)]


def _disproof(image: Expected, config: ImageConfig, survey: Survey, node: Node) -> str:
    """Return the first check of the proof that fails; empty if none does."""
    name, proof = image.name, prove(image, survey)
    if not proof.name:
        target = survey.records[name].short
        return f"has {target} under {name}, which is not the requested manifest"
    if not proof.diff_ids:
        return has_another(name, [config.digest], "the engine's image")
    if not proof.unpacked:
        return _not_unpacked(name, config.chain_id, survey, node)
    node.require_cri(survey, name)
    answer = survey.cri.get(name)
    if proof.cri is False and answer and answer.image_id:
        return f"has {name} as {config.digest.short}, but its CRI has another image of that name"
    return unknown_to_cri(name) if proof.cri is False else ""


def _other_name(wanted: Wanted, survey: Survey) -> str:
    names = dict.fromkeys(survey.records)
    names |= dict.fromkeys(survey.names_of(wanted.image_id) if wanted.image_id else ())
    others = [name for name in names if name != wanted.name]
    return f"; it has {others[0]}, which is a different name to a pod" if others else ""


def _not_unpacked(name: str, chain_id: Digest | None, survey: Survey, node: Node) -> str:
    used, usual = survey.traits.snapshotter, containerd.DEFAULT_SNAPSHOTTER
    text = f"has {name}, but its layers are not unpacked in CRI's snapshotter, {used}"
    if used == usual:
        return text
    snapshots = node.run(containerd.snapshots_command(usual)).decode(errors="replace")
    elsewhere = chain_id in containerd.parse_snapshots(snapshots)
    return f"{text}; they are in {usual}, which ctr and `kind load` use" if elsewhere else text


def _whole(name: str, config: ImageConfig, survey: Survey, node: Node) -> Iterator[Finding]:
    cri = "known to CRI" if survey.cri else "no crictl to ask CRI with"
    what = f"{node.name} has {name}: image {config.digest.short}, unpacked, {cri}"
    yield Finding("image", "ok", what)
    machine = survey.traits.platform
    if not machine.runs(config.platform):
        what = f"{node.name} is {machine}, but the image is for {config.platform}"
        effect = "its programs fail with `exec format error` unless they are emulated"
        yield Finding("image", "warning", f"{what}: {effect}", f"build with: --platform {machine}")
