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
from imgload.clusters.nodes.base import Before
from imgload.clusters.nodes.containerd import parse_marks
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Question, Survey, read_state, state_commands
from imgload.core.errors import ImgloadError
from imgload.loader.proof import Proof, prove
from imgload.oci.digest import Digest
from imgload.sources.base import Image

_RUNNING = r"""
running() {
    for process in /proc/[0-9]*; do
        words "${process#/proc/}" | grep -qF -e "$1" && echo "${process#/proc/}"
    done
}
words() { { tr '\0' '\n' <"/proc/$1/cmdline"; } 2>/dev/null; }
"""
"""Finds processes by their words. busybox's grep may look at a line only as far as a NUL byte."""
_END = (
    _RUNNING
    + r"""
[ -n "$1" ] || exit 1
marker=$1$2
tree=$(running "$marker")
new=$tree
while [ -n "$new" ]; do
    kill -STOP $new 2>/dev/null
    children=$(for pid in $new; do grep -lx -e "PPid:.$pid" /proc/[0-9]*/status 2>/dev/null; done)
    new=
    for pid in $(printf %s "$children" | tr -cd '0-9\n'); do
        case " $tree " in *[!0-9]"$pid"[!0-9]*) ;; *) new="$new $pid" ;; esac
    done
    tree="$tree $new"
done
kill -KILL $tree 2>/dev/null
tries=0
for pid in $tree; do
    while [ -n "$(words "$pid")" ]; do
        tries=$((tries + 1))
        [ $tries -lt 20 ] || exit 1
        sleep 0.1
    done
done
"""
)
"""Ends a command by its marker, and its children: ctr has no marker on its own command line.

The marker comes in two halves: the whole would find the shell that looks for it. All processes are
stopped before any is killed, so that none starts another one.
"""
_GIVE_BACK = (
    _RUNNING
    + r"""
snapshotter=$1 chain=$2 quoted=$3 written=$4 lost=$5 earlier=$6 name=$7 image_id=$8 id=$9
shift 9
any=name==$quoted
for pid in $(running "$any"); do
    if words "$pid" | grep -qxF import && words "$pid" | grep -qxF -e "name==\"$image_id\""
    then exit 0; fi
done
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
)
"""Nothing is done while another run imports the same image, or once the image is whole."""


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
        now, marks = _look(node, image, node.before)
        target = now.records.get(image.name)
        if target is None or image.image_id is None:
            return
        proof = prove(image, now)
        if now.has(image.name, image.image_id) and not _is_whole(proof):
            earlier = _earlier(image, node.before, surveyed, now, marks)
            own_id = None if _was_known(image.image_id, surveyed, node.before) else image.image_id
            config = now.configs.get(image.image_id)
            chain = config.chain_id if config and not proof.unpacked else None
            change = _Change(image.name, target, earlier, image.image_id, chain, own_id=own_id)
            _give_back(node, change)


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
        now, marks = _look(node, image, before)
        if _is_whole(prove(image, now)):
            return
        earlier = _earlier(image, before, surveyed, now, marks)
        lost = image.name not in now.records
        change = _Change(image.name, written, earlier, image.image_id, lost=lost)
        _give_back(node, change)


def _is_whole(proof: Proof) -> bool:
    """Whether the name leads to all of the image; CRI may still have to hear of it."""
    return proof.ok or proof.awaits_cri


def _look(node: Node, image: Image, before: Before) -> tuple[Survey, Mapping[Digest, float]]:
    """End the change, and return what the node has then, without asking CRI.

    Also when images were loaded under the name, by image ID.
    """
    question = attrs.evolve(Question.about([image]), asks_cri=False)
    node.require_running()
    if before.marker and before.complete:
        halves = (before.marker[:8], before.marker[8:])
        node.run(["sh", "-c", _END, "imgload", *halves])
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
    What another failed import of the same image has written is no better than this one's.
    """
    records = before.records
    if records is None and surveyed.fresh:
        records = surveyed.records
    others = {config: when for config, when in marks.items() if config != image.image_id}
    last = max(others, key=lambda config: others[config], default=None)
    if last is not None and (records is None or others[last] > before.since):
        return [m for m, config in now.content.configs.items() if config == last]
    target = (records or {}).get(image.name)
    if target and now.content.configs.get(target) == image.image_id:
        return []
    return [target] if target else []


@attrs.frozen
class _Change:
    """What is to become of a name.

    Args:
        name: the name.
        written: what this run has it lead to; nothing is changed where it leads elsewhere.
        earlier: what it is to lead to, one of these; none to remove it.
        image_id: the image's; nothing is changed while another run imports it under the name.
        unpacked: the snapshot whose presence shows that the image is whole after all.
        lost: whether the name may have been dropped, and is then made again.
        own_id: the image ID whose record CRI has made of this name, and which goes with it.

    """

    name: str
    written: Digest
    earlier: list[Digest]
    image_id: Digest | None
    unpacked: Digest | None = None
    lost: bool = False
    own_id: Digest | None = None


def _give_back(node: Node, change: _Change) -> None:
    """Change a name that still leads to what was written, in one exec.

    The filter for the name is put together there: another run would take it for an import's.
    """
    arguments = (
        node.snapshotter,
        str(change.unpacked or ""),
        containerd.quoted(change.name),
        containerd.any_target([change.written]),
        "lost" if change.lost else "",
        containerd.any_target(change.earlier) if change.earlier else "",
        change.name,
        str(change.image_id or ""),
        str(change.own_id or ""),
    )
    node.run(["sh", "-c", _GIVE_BACK, "imgload", *arguments, *node.spelled(containerd.CTR)])
