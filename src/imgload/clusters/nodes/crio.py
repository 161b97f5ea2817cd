"""A node with CRI-O, into whose store Podman writes.

CRI-O has no command that imports images. It shares its store with Podman, which minikube's nodes
have, and reads the store again when another process has changed it. minikube itself loads with
``podman load`` (pkg/minikube/cruntime/crio.go).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

import attrs

from imgload.clusters.nodes import containerd, kubelet
from imgload.clusters.nodes.base import ArchiveFormat, NameChange, NodeRuntime, PreviousNames
from imgload.clusters.nodes.batch import (
    NOT_FOUND,
    WHILE_DISK_FILLS,
    Group,
    Output,
    keepalive_command,
)
from imgload.clusters.nodes.containerd import ContentStore
from imgload.clusters.nodes.node import REACH, SELECT_URL
from imgload.clusters.nodes.proof import Expected, prove
from imgload.clusters.nodes.storage import (
    CRIO_CONFIG,
    FILE_SYSTEM,
    PODMAN,
    Storage,
    Store,
    find_storage,
    read_info,
    read_search,
    read_store,
)
from imgload.clusters.nodes.survey import (
    NamedImage,
    NodeTraits,
    Survey,
    SurveyQuery,
    parse_free,
    read_config,
)
from imgload.core.errors import ImgloadError, NodeStalled, NodeUnusable
from imgload.engines.base import Chunk
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, familiar_name, is_tagged

_FRAME = 4 << 20
_RECEIVE = r"""
folder=$1
shift
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -m 700 "$folder" || exit
while read -r size && [ "$size" -gt 0 ]; do
    dd bs="$size" count=1 iflag=fullblock 2>"$folder/error" && continue
    cat "$folder/error" >&2
    sleep 0.3
    exit 1
done >"$folder/image.tar"
[ "$size" = 0 ] || exit
"""
"""Reads a file of pieces, each after its size in bytes, and 0: the input has no end, and Podman
takes an archive only from a file."""
_PACK = r"""
folder=$1
shift
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
(cd "$folder/layout" && tar -cf "$folder/image.tar" *) && rm -rf "$folder/layout" || exit
"""
_LOAD = r"""
TMPDIR=$folder "$@" load --quiet --input "$folder/image.tar" >/dev/null 2>"$folder/error" </dev/null
status=$?
[ $status = 0 ] || { cat "$folder/error"; sed -n 's/^ \* docker-archive: //p' "$folder/error"; } >&2
[ $status = 0 ] || sleep 0.3
exit $status
"""
"""Podman tries all kinds of archives, and prints an error for each of them."""
_PULL = (
    r"""
folder=$1 hosts=$2 urls=$3 repositories=$4 names=$5
shift 5
trap 'rm -rf "$hosts"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -m 700 "$hosts" || exit
"""
    + SELECT_URL
    + r"""
server=${url#http://} server=${server%%/*}/${server##*/}
printf '%s\n' "$repositories" | while read -r prefix path; do
    printf '[[registry]]\nprefix = "%s"\nlocation = "%s"\ninsecure = true\n' \
        "$prefix" "$server/$path"
done >"$hosts/registries.conf"
export CONTAINERS_REGISTRIES_CONF="$hosts/registries.conf" TMPDIR="$hosts"
export NO_PROXY='*' no_proxy='*'
set -f
IFS='
'
for name in $names; do
    "$@" pull --quiet "$name" >/dev/null || exit
done
"""
)
"""Pulls names, one per line, with this process as the registry of their repositories."""
_TAG = """
existing=$1 id=$2 name=$3
shift 3
[ "$("$@" image inspect --format '{{.Id}}' "$existing" 2>/dev/null)" = "$id" ] || exit 0
exec "$@" tag "$id" "$name"
"""
_RESTORE = """
name=$1 written=$2 earlier=$3 is_new=$4
shift 4
[ "$("$@" image inspect --format '{{.Id}}' "$name" 2>/dev/null)" = "$written" ] || exit 0
if [ "$earlier" ]; then "$@" tag "$earlier" "$name"; else "$@" untag "$name" "$name"; fi
[ -z "$is_new" ] || "$@" rmi "$written" >/dev/null 2>&1
exit 0
"""
_UNTAG = """
names=$1
shift
set -f
IFS='
'
for name in $names; do "$@" untag "$name" "$name" || exit; done
"""
_PODMAN_HINT = "install podman on the node, as on minikube's; or load with: minikube image load"


@attrs.define(eq=False, repr=False)
class CrioNode(NodeRuntime):
    """A node with CRI-O; `endpoint` is the address of its CRI."""

    runtime_name: ClassVar[str] = "crio"
    endpoint: str = "unix:///var/run/crio/crio.sock"
    _traits: NodeTraits | None = None
    storage: Storage = attrs.field(factory=Storage, init=False)
    store: Store = attrs.field(factory=Store, init=False)
    """The content of the store when it was read last."""
    _search: tuple[str, ...] = ()
    """The registries in which CRI-O looks for a name without one."""

    def survey(self, question: SurveyQuery) -> Survey:
        self.require_running()
        if self._traits is None:
            facts: Group = (PODMAN, CRIO_CONFIG, FILE_SYSTEM, ("uname", "-m"), kubelet.READ)
            guess = self.storage
            outputs = self.run_all(facts, *self._questions(question))
            with self.naming_node_in_errors():
                self._read_facts(outputs[: len(facts)])
            if self.storage == guess:
                return self._read(question, outputs[len(facts) :])
        return self._read(question, self.run_all(*self._questions(question)))

    def _questions(self, question: SurveyQuery) -> list[Group]:
        """Return the commands whose output `_read` parses."""
        storage = self.storage
        return [
            [
                *map(storage.config, question.image_ids),
                *(containerd.inspect_image(name) for name in question.names if question.asks_cri),
            ],
            [storage.free, *storage.read],
        ]

    def _read_facts(self, outputs: Sequence[Output]) -> None:
        info, crio, file_system, machine, of_kubelet = outputs
        if info.exit_status == NOT_FOUND:
            what = "CRI-O runs there, but there is no podman to write into its store"
            raise NodeUnusable(what, hint=_PODMAN_HINT)
        if info.exit_status:
            hint = f"see why: {self.exec_command('podman', 'info')}"
            raise NodeUnusable("podman does not work there", hint=hint)
        document = read_info(info)
        self.storage = find_storage(document, crio, file_system)
        self._search = read_search(document)
        self._traits = NodeTraits(
            version=(0, 0),
            snapshotter=self.storage.driver,
            platform=Platform.of("linux", machine.text.strip()),
            free=None,
            kubelet=kubelet.Kubelet.parse(of_kubelet.text),
            runtime="CRI-O's store",
        )

    def _read(self, question: SurveyQuery, outputs: Sequence[Output]) -> Survey:
        *rest, free, images, layers, labels = outputs
        blobs, answers = rest[: len(question.image_ids)], rest[len(question.image_ids) :]
        configs = map(read_config, question.image_ids, blobs)
        with self.naming_node_in_errors():
            hint = f"start CRI-O: {self.exec_command('systemctl', 'restart', 'crio')}"
            cri = [containerd.parse_inspect(answer, hint) for answer in answers]
            self.store = store = read_store(images, layers, labels)
        return Survey(
            traits=self._known_traits.with_space(free),
            records=store.records,
            content=store.content,
            snapshots=store.snapshots,
            configs={config.digest: config for config in configs if config},
            cri={n: answer for n, answer in zip(question.names, cri, strict=False) if answer},
        )

    @property
    def archive_format(self) -> ArchiveFormat:
        return "docker"

    @property
    def keeps_manifests(self) -> bool:
        return False

    def import_layout(
        self,
        layout: Iterable[Chunk],
        platform: Platform,  # noqa: ARG002 - the archive has no other images
        question: SurveyQuery,
    ) -> Survey:
        self.before = before = PreviousNames()
        with self.temporary_folder(removes_itself=True) as folder:
            words = ("imgload", folder, *self.storage.podman)
            if self.engine.streams_exec:
                command, stdin = ("sh", "-c", _RECEIVE + _LOAD, *words), _framed(layout)
                return self._change(command, "podman load", question, before, stdin)
            self.run(["mkdir", "-p", f"{folder}/layout"])
            self.engine.put_archive(self.container.id, f"{folder}/layout", layout)
            script = keepalive_command(_PACK + _LOAD, WHILE_DISK_FILLS, *words[1:])
            return self._change(script, "podman load", question, before)

    @property
    def gateways(self) -> Sequence[str]:
        return self.container.gateways if self.engine.endpoint.local else ()

    def pull(
        self,
        urls: Sequence[str],
        names: Sequence[str],
        platform: Platform,  # noqa: ARG002
        question: SurveyQuery,
    ) -> Survey:
        repositories = dict.fromkeys(Reference.parse(name).untagged for name in names)
        paths = [f"{x} {x.registry.replace(':', '__')}/{x.repository}" for x in repositories]
        with self.temporary_folder(removes_itself=True) as folder:
            self.before = before = PreviousNames(folder=folder)
            words = (self.storage.root, folder, " ".join(urls), "\n".join(paths), "\n".join(names))
            script = REACH + _PULL
            command = keepalive_command(script, WHILE_DISK_FILLS, *words, *self.storage.podman)
            try:
                return self._change(command, "podman pull", question, before)
            except NodeStalled:  # an import may follow
                from imgload.clusters.nodes.rollback import end  # noqa: PLC0415 - start-up

                with suppress(ImgloadError):
                    end(self, before)
                raise

    def tag(
        self, image: NamedImage, existing: str, target: Digest, before: PreviousNames
    ) -> Survey:
        """Tag an image; podman tags none by digest, so such a name has to be pulled."""
        stored, question = self.store.find(target), SurveyQuery.about([image])
        if not stored or not is_tagged(image.name) or existing == image.name:
            return self.survey(question)
        words = (existing, stored.id, image.name, *self.storage.podman)
        command = ("sh", "-c", _TAG, "imgload", *words)
        return self._change(command, "podman tag", question, before)

    def _change(
        self,
        command: Sequence[str],
        action: str,
        question: SurveyQuery,
        before: PreviousNames,
        stdin: Iterable[Chunk] | None = None,
    ) -> Survey:
        """Run a command, label the loaded images, and survey the node, all in one exec."""
        storage = self.storage
        answers, last = self._questions(question)
        label = [storage.label(question.loaded, time.time())] if question.loaded else []
        change = NameChange(action, command, storage.read[0], _names, stdin)
        outputs = self.run_change(change, [answers, [*label, *last]], before)
        at = len(answers)
        return self._read(question, [*outputs[:at], *outputs[at + len(label) :]])

    def rollback(
        self,
        image: Expected,
        surveyed: Survey,
        written: Digest | None = None,
        before: PreviousNames | None = None,
    ) -> None:
        """Restore a name that this load moved to an image that is not complete, or unknown to CRI.

        Podman names an image after it has stored all of it.
        """
        from imgload.clusters.nodes.rollback import end  # noqa: PLC0415 - start-up

        before = before or self.before
        with suppress(ImgloadError):
            if before.complete:
                end(self, before)
            now = self.survey(attrs.evolve(SurveyQuery.about([image]), asks_cri=False))
            proof, target = prove(image, now), now.records.get(image.name)
            if proof.ok or target is None or written not in {None, target}:
                return
            records = before.records
            if records is None:
                records = surveyed.records if surveyed.fresh else {}
            stored, earlier = self.store.find(target), None
            if stored is None or stored.config != image.image_id or not is_tagged(image.name):
                return
            if image.name in records:
                earlier = self.store.find(records[image.name])
            is_new = stored.config not in surveyed.content.configs.values()
            words = (image.name, stored.id, earlier.id if earlier else "", "new" if is_new else "")
            self.run(["sh", "-c", _RESTORE, "imgload", *words, *self.storage.podman])

    @property
    def pin_requirement(self) -> str:
        return "CRI-O pins only the images of pinned_images in its settings"

    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        self.run_all([self.storage.label(loaded, time.time())])

    def stored_layers(
        self,
        content: ContentStore,  # noqa: ARG002
        diff_ids: Collection[Digest],
    ) -> Mapping[Digest, Descriptor]:
        return self.store.describe(diff_ids)

    def damaged_blobs(self, name: str) -> list[Digest]:
        """Return the layers and the config of an image that Podman cannot recreate."""
        from imgload.clusters.nodes.saved import damaged_layers  # noqa: PLC0415 - start-up

        target = self.survey(SurveyQuery((name,), (), asks_cri=False)).records.get(name)
        image = self.store.find(target) if target else None
        if image is None:
            return []
        digests = (image.config, *(self.store.layers[layer].diff_id for layer in image.layers))
        with self.temporary_folder() as folder:  # podman leaves files after a failure
            script = 'mkdir -m 700 "$TMPDIR" && exec "$@"'
            words = ("env", f"TMPDIR={folder}", "sh", "-c", script, "imgload")
            save = (*words, *self.storage.podman, "image", "save", image.id)
            return damaged_layers(self, name, save, self.storage.root, digests)

    def repair_hint(self, name: str, damaged: Sequence[Digest] = ()) -> str:  # noqa: ARG002
        from imgload.clusters.nodes.saved import repair_hint  # noqa: PLC0415 - start-up

        return repair_hint(self.exec_command(*self.storage.podman, "rmi", name))

    def images(self) -> Mapping[str, Digest]:
        self.survey(SurveyQuery((), ()))
        images = self.store.images
        return {name: image.manifests[0] for image in images for name in image.names}

    def untag(self, names: Sequence[str]) -> None:
        self.run(["sh", "-c", _UNTAG, "imgload", "\n".join(names), *self.storage.podman])

    def remove(self, names: Sequence[str]) -> None:
        self.run([*self.storage.podman, "rmi", "--", *names])

    def forget(self) -> None:
        self._traits = None

    def free_bytes(self) -> int | None:
        with suppress(ImgloadError):
            return parse_free(self.run(self.storage.free).decode(errors="replace"))
        return None

    def kubelet_notes(self, traits: NodeTraits, name: str, image_id: Digest | None) -> list[str]:
        """Add whether pods find the image by its short name, which CRI-O resolves by its settings.

        Without an alias, the first registry that has the name wins (containers-registries.conf(5)).
        """
        notes, short = super().kubelet_notes(traits, name, image_id), familiar_name(name)
        if short == name or not is_tagged(name):
            return notes
        named = {name for image in self.store.images for name in image.names}
        candidates = [str(Reference.parse(f"{registry}/{short}")) for registry in self._search]
        first = next((candidate for candidate in candidates if candidate in named), None)
        if first != name:
            why = f"gets {first}" if first else "gets no image"
            searched = ", ".join(self._search) or "no registry"
            notes.append(
                f"a pod on {self.name} that names the image {short} {why}: CRI-O looks for short"
                f" names in {searched}; write {name} in the pod"
            )
        return notes

    @property
    def log_command(self) -> str:
        return self.exec_command("podman", "images", "--digests")

    @property
    def list_command(self) -> str:
        return self.exec_command("podman", "images")

    def resolve_command(self, command: Sequence[str]) -> tuple[str, ...]:
        program, *arguments = command
        if program != "crictl":
            return tuple(command)
        return containerd.crictl_command((program,), self.endpoint, arguments)

    @property
    def _known_traits(self) -> NodeTraits:
        if self._traits is None:
            raise NodeUnusable(f"{self.name} was not surveyed", node=self.name)
        return self._traits


def _names(images: Output) -> dict[str, Digest]:
    return read_store(images).records


def _framed(layout: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield a stream in pieces, each after its size, for `_RECEIVE`."""
    piece = bytearray()
    for chunk in layout:
        piece += chunk
        if len(piece) >= _FRAME:
            yield b"%d\n" % len(piece)
            yield bytes(piece)
            piece.clear()
    if piece:
        yield b"%d\n" % len(piece)
        yield bytes(piece)
    yield b"0\n"
