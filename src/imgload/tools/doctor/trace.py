"""From an image's name on a node to what CRI makes of it: the first broken link.

The kubelet asks CRI for the name. CRI knows it when containerd has a record of that name, whose
manifest is there, whose config is there and lists layers that are unpacked in CRI's snapshotter.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Question, Survey
from imgload.core.errors import ImgloadError
from imgload.loader.verify import has_another, lacks, unknown_to_cri
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.reference import pinned
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.image import Wanted
from imgload.tools.doctor.timeouts import answers

_SECONDS = 10.0
_LOCALHOST = "localhost/"
_LIBRARY = "docker.io/library/"


class Broken(str):
    """What is said of a node after its name: the first link that does not hold."""

    __slots__ = ()


def check_chain(wanted: Wanted, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Yield for each node whether the image is whole on it, or the first broken link."""
    told = answers([partial(_look, wanted, node) for node in nodes], _SECONDS)
    for node, found in zip(nodes, told, strict=True):
        if isinstance(found, ImgloadError):
            unasked = f"{wanted.name} cannot be looked for: {found.message}"
            yield Finding("image", "problem", unasked, found.hint)
        elif isinstance(found, Broken):
            load = f"imgload load {shlex.quote(wanted.asked)} --node {node.name}"
            hint = load if wanted.known else f"once an engine has it: {load}"
            yield Finding("image", "problem", f"{node.name} {found}", hint)
        else:
            yield from _whole(wanted, node, *found)


def _look(wanted: Wanted, node: Node) -> Broken | tuple[Survey, ImageConfig]:
    question = Question(_names(wanted), (wanted.image_id,) if wanted.image_id else ())
    survey = node.survey(question)
    found = _first_half(wanted, survey)
    if isinstance(found, Broken):
        return found
    if found not in question.image_ids:
        survey = node.survey(attrs.evolve(question, image_ids=(found,)))
    return _second_half(wanted, found, survey, node)


def _names(wanted: Wanted) -> tuple[str, ...]:
    """Return the name, and what other programs make of it: no pod finds it there."""
    other = wanted.name.removeprefix(_LIBRARY)
    return (wanted.name, f"{_LOCALHOST}{other}") if other != wanted.name else (wanted.name,)


def _first_half(wanted: Wanted, survey: Survey) -> Digest | Broken:
    """Return the config that the name leads to."""
    name, target = wanted.name, survey.records.get(wanted.name)
    if target is None:
        return Broken(f"{lacks(name)}{_instead(wanted, survey)}")
    pin = pinned(name)
    if pin and pin != target:
        return Broken(f"has {target.short} under {name}, which is not the manifest demanded")
    configs = survey.content.configs_under(target)
    if not configs:
        return Broken(f"has the name {name}, and lacks its manifest {target.short}")
    if wanted.image_id and wanted.image_id not in configs:
        return Broken(_another(wanted, configs))
    return wanted.image_id or min(configs)


def _second_half(
    wanted: Wanted, image_id: Digest, survey: Survey, node: Node
) -> Broken | tuple[Survey, ImageConfig]:
    name, config = wanted.name, survey.configs.get(image_id)
    if config is None:
        return Broken(f"has the name {name}, and cannot read its config {image_id.short}")
    if wanted.known and config.diff_ids != wanted.diff_ids:
        return Broken(_another(wanted, [image_id]))
    if config.chain_id and config.chain_id not in survey.snapshots:
        return Broken(_not_unpacked(name, config.chain_id, survey, node))
    node.require_cri(survey, name)
    answer = survey.cri.get(name)
    unknown = answer.image_id is None if answer else name in survey.unseen
    if unknown:
        return Broken(unknown_to_cri(name))
    if answer and answer.image_id != image_id:
        return Broken(f"has {name} as {image_id.short}, and its CRI takes it for another image")
    return survey, config


def _instead(wanted: Wanted, survey: Survey) -> str:
    """Return under which other name the node has the image, or a name that looks the same."""
    others = survey.names_of(wanted.image_id) if wanted.image_id else list(survey.records)
    named = [other for other in {**survey.records, **dict.fromkeys(others)} if other != wanted.name]
    return f"; it has {named[0]}, which to a pod is another name" if named else ""


def _another(wanted: Wanted, there: Iterable[Digest]) -> str:
    here = wanted.image_id.short if wanted.image_id else "the one that the engine has"
    return has_another(wanted.name, there, here)


def _not_unpacked(name: str, chain: Digest, survey: Survey, node: Node) -> str:
    used, usual = survey.traits.snapshotter, containerd.DEFAULT_SNAPSHOTTER
    what = f"has {name}, and its layers are not unpacked in CRI's snapshotter, {used}"
    if used == usual:
        return what
    listed = node.run(containerd.snapshots_of(usual)).decode(errors="replace")
    there = chain in containerd.parse_snapshots(listed)
    return f"{what}; they are in {usual}, where ctr and `kind load` put them" if there else what


def _whole(wanted: Wanted, node: Node, survey: Survey, config: ImageConfig) -> Iterator[Finding]:
    told = "known to CRI" if survey.cri else "no crictl to ask CRI with"
    what = f"{node.name} has {wanted.name}: image {config.digest.short}, unpacked, {told}"
    yield Finding("image", "ok", what)
    machine = survey.traits.platform
    if not machine.runs(config.platform):
        runs = f"{node.name} is {machine}, and the image is for {config.platform}"
        effect = "its programs end with `exec format error` unless they are emulated"
        build = f"build it with: --platform {machine}"
        yield Finding("image", "warning", f"{runs}: {effect}", build)
