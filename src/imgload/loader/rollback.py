"""Taking back the names that a failed load wrote, and no others.

ctr has no compare-and-swap: a shell on the node looks whether a name still leads to what this run
wrote, and changes it in the next command.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.labels import parse_marks
from imgload.clusters.nodes.node import Before, Node
from imgload.clusters.nodes.survey import Question, Survey, read_state, state_commands
from imgload.core.errors import ImgloadError
from imgload.loader.proof import prove
from imgload.oci.digest import Digest
from imgload.oci.image import Image

_GIVE_BACK = """
running=$1 snapshotter=$2 chain=$3 any=$4 written=$5 lost=$6 earlier=$7 name=$8 id=$9
shift 9
[ -z "$running" ] || ! grep -q -e "$running" /proc/[0-9]*/cmdline 2>/dev/null || exit 0
if [ -n "$chain" ] && "$@" snapshots --snapshotter "$snapshotter" info "$chain" >/dev/null 2>&1
then exit 0; fi
source=
[ -z "$earlier" ] || source=$("$@" images ls -q "$earlier" | grep -vxF -e "$name" | head -n 1)
if [ -n "$("$@" images ls -q "$any,$written")" ]; then
    if [ -n "$source" ]
    then "$@" images tag --force -- "$source" "$name"; else "$@" images rm -- "$name"; fi
elif [ -n "$lost" ] && [ -n "$source" ] && [ -z "$("$@" images ls -q "$any")" ]; then
    "$@" images tag -- "$source" "$name"
fi
if [ -n "$id" ] && ! "$@" images ls -q "$written" | grep -qvxF -e "$id"
then "$@" images rm -- "$id"; fi
"""
"""Nothing is done while the command that writes the name still runs, or once the image is whole."""


def undo(node: Node, surveyed: Survey, image: Image) -> None:
    """Give a name back that a failed import wrote, unless the image is whole.

    ``ctr images import`` names an image before it unpacks it, so that a failure leaves a node
    that believes it has the image (kind #2402). CRI adds a record named after the image ID.

    Args:
        node: where the import failed.
        surveyed: what the node had before.
        image: what was to be loaded.

    """
    with contextlib.suppress(ImgloadError):
        now, marks = _look(node, image)
        target = now.records.get(image.name)
        if target is None or image.image_id is None:
            return
        proof = prove(image, now)
        if now.has(image.name, image.image_id) and not (proof.ok or proof.awaits_cri):
            earlier = _earlier(image, node.before, surveyed, now, marks)
            own_id = None if _was_known(image.image_id, surveyed, node.before) else image.image_id
            config = now.configs.get(image.image_id)
            chain = config.chain_id if config and not proof.unpacked else None
            change = _Change(image.name, target, earlier, unpacked=chain, own_id=own_id)
            _give_back(node, node.before, change)


def undo_tag(node: Node, surveyed: Survey, image: Image, written: Digest, before: Before) -> None:
    """Give a name back that a failed tag wrote, or dropped before it failed.

    Args:
        node: where the tag failed, or was not proven.
        surveyed: what the node had before.
        image: what was to be tagged.
        written: what the name was made to lead to.
        before: what it led to.

    """
    with contextlib.suppress(ImgloadError):
        now, marks = _look(node, image)
        earlier = _earlier(image, before, surveyed, now, marks)
        change = _Change(image.name, written, earlier, lost=image.name not in now.records)
        _give_back(node, before, change)


def _look(node: Node, image: Image) -> tuple[Survey, Mapping[Digest, float]]:
    """Return what the node has now, and when images were loaded under the name, by image ID."""
    question = Question.about([image])
    node.require_running()
    traits, outputs = node.ask(partial(state_commands, question))
    with node.understanding():
        now = read_state(question, traits, outputs)
    marks: dict[Digest, float] = {}
    for line in outputs[-2].text.splitlines():
        digest, loaded = Digest.maybe(line.partition("\t")[0]), parse_marks(line)
        if digest and image.name in loaded:
            marks[digest] = loaded[image.name]
    return now, marks


def _was_known(image_id: Digest, surveyed: Survey, before: Before) -> bool:
    """Whether CRI may have had a record by the image ID before."""
    return image_id in surveyed.content.configs.values() or str(image_id) in (before.records or {})


def _earlier(
    image: Image,
    before: Before,
    surveyed: Survey,
    now: Survey,
    marks: Mapping[Digest, float],
) -> list[Digest]:
    """Return the manifests of the image that the name is given back to; none to remove it.

    That is what the name led to before the change, or what another imgload has loaded under it
    since then. Where nothing was told about before, it is the last image that was loaded under it.
    """
    records = before.records
    if records is None and surveyed.fresh:
        records = surveyed.records
    others = {config: when for config, when in marks.items() if config != image.image_id}
    last = max(others, key=lambda config: others[config], default=None)
    if last is not None and (records is None or others[last] > before.since):
        return [m for m, config in now.content.configs.items() if config == last]
    target = (records or {}).get(image.name)
    return [target] if target else []


@attrs.frozen
class _Change:
    """What is to become of a name.

    Args:
        name: the name.
        written: what this run has it lead to; nothing is changed where it leads elsewhere.
        earlier: what it is to lead to, one of these; none to remove it.
        unpacked: the snapshot whose presence shows that the image is whole after all.
        lost: whether the name may have been dropped, and is then made again.
        own_id: the image ID whose record CRI has made of this name, and which goes with it.

    """

    name: str
    written: Digest
    earlier: list[Digest]
    unpacked: Digest | None = None
    lost: bool = False
    own_id: Digest | None = None


def _give_back(node: Node, before: Before, change: _Change) -> None:
    """Change a name that still leads to what was written, in one exec."""
    arguments = (
        f"[{before.marker[0]}]{before.marker[1:]}" if before.marker else "",
        node.snapshotter,
        str(change.unpacked or ""),
        f"name=={containerd.quoted(change.name)}",
        containerd.any_target([change.written]),
        "lost" if change.lost else "",
        containerd.any_target(change.earlier) if change.earlier else "",
        change.name,
        str(change.own_id or ""),
    )
    node.run(["sh", "-c", _GIVE_BACK, "imgload", *arguments, *node.spelled(containerd.CTR)])
