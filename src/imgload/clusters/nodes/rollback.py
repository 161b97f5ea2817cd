"""Restores the names that a failed load wrote, and no others.

ctr has no compare-and-swap: a shell on the node checks whether a name still refers to the image
that this run wrote, and changes it in the next command.
"""

from __future__ import annotations

import contextlib

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.base import NodeRuntime, PreviousNames
from imgload.clusters.nodes.proof import Expected, prove
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core.errors import ImgloadError
from imgload.oci.digest import Digest

_RUNNING = r"""
running() {
    for process in /proc/[0-9]*; do
        words "${process#/proc/}" | grep -qF -e "$1" && echo "${process#/proc/}"
    done
}
words() { { tr '\0' '\n' <"/proc/$1/cmdline"; } 2>/dev/null; }
"""
"""Finds processes by their arguments. busybox's grep may read a line only up to a NUL byte."""
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
[ -z "$3" ] || rm -rf "$3"
"""
)
"""Ends a command by its marker, with its children: ctr has no marker on its own command line.

The marker is passed in two halves, or the shell would find itself. All processes are stopped before
any is killed, so that none starts another one.
"""
_RESTORE = (
    _RUNNING
    + r"""
snapshotter=$1 chain=$2 quoted=$3 written=$4 lost=$5 earlier=$6 name=$7 image_id=$8 id=$9
shift 9
any=name==$quoted
for pid in $(running "$any"); do
    if words "$pid" | grep -qxE 'import|pull' && words "$pid" | grep -qxF -e "name==\"$image_id\""
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
"""Changes a name that still has the target `written`, to a target in `earlier`, or removes it.

`chain` is the snapshot whose existence shows that the image is complete; then nothing is changed,
nor while another run imports or pulls the same image. `lost` allows to create a name that does not
exist. `id` is the record that CRI has created for this name. The shell assembles the filter for the
name, or another run would take this process for a transfer.
"""


def end(node: NodeRuntime, change: PreviousNames) -> None:
    """End a change that may still run, since its connection broke or it printed nothing."""
    if change.marker:
        words = (change.marker[:8], change.marker[8:], change.folder)
        node.run(["sh", "-c", _END, "imgload", *words])


def undo(
    node: NodeRuntime,
    surveyed: Survey,
    image: Expected,
    written: Digest | None,
    before: PreviousNames,
) -> None:
    """Restore a name that a failed import or tag wrote or removed, unless the image is complete.

    ``ctr images import`` names an image before it unpacks it, so that a node with a failed import
    seems to have the image (kind #2402). CRI adds a record named after the image ID. `surveyed` is
    the node's state before the load. `written` is the target that a tag wrote, or None after an
    import; `before` is the state of names before the change.
    """
    with contextlib.suppress(ImgloadError):
        question = attrs.evolve(SurveyQuery.about([image]), asks_cri=False)
        if before.complete:
            end(node, before)
        now = node.survey_once(question)
        proof, image_id = prove(image, now), image.image_id
        if proof.ok or proof.cri_pending:
            return
        chain: Digest | None = None
        own_id: Digest | None = None
        if written is None:
            written = now.records.get(image.name)
            if written is None or image_id is None or not now.has(image.name, image_id):
                return
            config = now.configs.get(image_id)
            chain = config.chain_id if config and not proof.unpacked else None
            configs, records = surveyed.content.configs.values(), before.records or {}
            own_id = None if image_id in configs or str(image_id) in records else image_id
        earlier = _earlier_manifests(image, before, surveyed, now)
        arguments = (
            now.traits.snapshotter,
            str(chain or ""),
            containerd.quoted(image.name),
            containerd.any_target([written]),
            "lost" if image.name not in now.records else "",
            containerd.any_target(earlier) if earlier else "",
            image.name,
            str(image_id or ""),
            str(own_id or ""),
        )
        ctr = node.resolve_command(containerd.CTR)
        node.run(["sh", "-c", _RESTORE, "imgload", *arguments, *ctr])


def _earlier_manifests(
    image: Expected, before: PreviousNames, surveyed: Survey, now: Survey
) -> list[Digest]:
    """Return the manifests of the image that gets the name; none to remove the name.

    It is the name's image before the change, or an image that another run of imgload loaded under
    it since then. If the state before is unknown, it is the last image loaded under it. A record
    that another failed import of the same image wrote does not count.
    """
    records = before.records
    if records is None and surveyed.fresh:
        records = surveyed.records
    times = now.content.loaded_as(image.name)
    others = {config: time for config, time in times.items() if config != image.image_id}
    last = max(others, key=lambda config: others[config], default=None)
    if last is not None and (records is None or others[last] > before.since):
        return [m for m, config in now.content.configs.items() if config == last]
    target = (records or {}).get(image.name)
    if target and now.content.configs.get(target) == image.image_id:
        return []
    return [target] if target else []
