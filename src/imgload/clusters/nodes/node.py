"""A node with containerd."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import ClassVar, TypeGuard

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.base import WITHOUT_FILES, NameChange, NodeRuntime, PreviousNames
from imgload.clusters.nodes.batch import (
    WHILE_DISK_FILLS,
    Group,
    Output,
    keepalive_command,
)
from imgload.clusters.nodes.containerd import (
    CONTAINERD,
    Containerd,
    ContentStore,
    content_command,
)
from imgload.clusters.nodes.files import FileList
from imgload.clusters.nodes.proof import Expected
from imgload.clusters.nodes.survey import (
    NamedImage,
    NodeTraits,
    Survey,
    SurveyQuery,
    parse_free,
    parse_start,
)
from imgload.core.errors import ImgloadError, NodeStalled, NodeUnusable
from imgload.core.parallel import result_or_error
from imgload.engines.base import Chunk, OpenInput
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, Manifest
from imgload.oci.platform import Platform

_FEED = '"$@"; status=$?; [ $status = 0 ] || sleep 0.3; exit $status'
"""Lets the last output of a failed command through first, since Podman drops it when the input
breaks."""
REACH = r"""
reach() {
    host=${1#http://} host=${host%%/*}
    port=${host##*:} host=${host%:*}
    if command -v bash; then timeout 1 bash -c ': <>"/dev/tcp/$0/$1"' "$host" "$port"
    elif command -v curl; then curl -fs -m 1 "$1/"
    elif command -v nc; then timeout 1 nc -w 1 "$host" "$port"
    elif command -v wget; then timeout 1 wget -q -T 1 -O - "$1/"
    fi
} </dev/null >/dev/null 2>&1
"""
"""Defines `reach URL`, which succeeds if a node can connect to a server within a second."""
SELECT_URL = r"""
url=${urls%% *}
{
    sleep 0.2
    for other in ${urls#"$url"}; do
        { reach "$other" && echo "$other" >"$hosts/url"; } &
    done
    wait
} </dev/null >/dev/null 2>&1 & others=$!
if reach "$url"; then kill "$others"
else
    gateway=${url#http://} url=
    wait "$others"
    [ ! -e "$hosts/url" ] || read -r url <"$hosts/url"
    [ "$url" ] || { echo "cannot connect to ${gateway%%/*} from the node" >&2; exit 69; }
fi
"""
"""Sets `url` to one of `urls` to which the node can connect within a second: firewalls may drop
packets silently; the first is the usual one. `hosts` is a folder."""
_PULL = (
    r"""
folder=$1 hosts=$2 urls=$3 names=$4 local=$5
shift 5
mkdir -m 700 "$hosts" "$hosts/_default" || exit
trap 'rm -rf "$hosts"' EXIT
"""
    + SELECT_URL
    + r"""
rules='capabilities = ["pull", "resolve"]
override_path = true'
printf 'server = "%s"\n%s\n[host."%s"]\n%s\n' "$url" "$rules" "$url" "$rules" \
    >"$hosts/_default/hosts.toml"
set -f
[ -z "$HTTP_PROXY$http_proxy" ] || set -- "$@" $local
IFS='
'
for name in $names; do
    NO_PROXY='*' no_proxy='*' "$@" --hosts-dir "$hosts" "$name" >/dev/null || exit
done
"""
)
"""Pulls names, one per line, with this process as the only registry. containerd 1.6 and 1.7 ignore
the settings of ``server`` without a ``host``, and would go on to the public registry."""
_FROM_FOLDER = """
folder=$1
shift
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" -cf - . | "$@"
"""
"""Removes the folder itself, because it continues if imgload is interrupted."""
Commands = Callable[[str], Sequence[Group]]
"""Groups of commands that depend on CRI's snapshotter."""


@attrs.define(eq=False, repr=False)
class Node(NodeRuntime):
    """A node with containerd; `runtime` says where it is."""

    runtime_name: ClassVar[str] = "containerd"
    runtime: Containerd = CONTAINERD
    _traits: NodeTraits | None = None
    _last: Survey | None = None
    """The survey after the last import, perhaps of an earlier run."""

    def survey(self, question: SurveyQuery) -> Survey:
        configs = self._last.content.configs if self._last else {}
        known = [m for m, config in configs.items() if config in question.image_ids]
        survey = self.survey_once(attrs.evolve(question, targets=tuple(known)))
        targets = survey.named_otherwise(question)
        if set(targets) <= set(known):
            return survey
        return self.survey_once(attrs.evolve(question, targets=targets))

    def survey_once(self, question: SurveyQuery) -> Survey:
        traits, outputs = self.run_for_snapshotter(question.commands)
        return self._read_survey(question, traits, outputs)

    def _read_survey(
        self, question: SurveyQuery, traits: NodeTraits, outputs: Sequence[Output]
    ) -> Survey:
        with self.naming_node_in_errors():
            return Survey.read(question, traits, outputs)

    def forget(self) -> None:
        self._traits = None
        self._forget_survey()

    def cached_survey(self, question: SurveyQuery) -> Survey | None:
        """Return the survey after the last import, if it suffices to plan a load.

        It may be of an earlier run. If blobs were collected since, the import's own verification
        fails. An image that the node may have needs a new survey.
        """
        if self.runtime.selected or self.container.state != "running":
            return None
        from imgload.clusters.nodes.survey_cache import read_survey  # noqa: PLC0415 - start-up

        self._last = survey = self._last or read_survey(self.container.id)
        if survey is None:
            return None
        self._traits = self._traits or survey.traits
        is_new = survey.content.blobs.isdisjoint(question.image_ids)
        return attrs.evolve(survey, fresh=False) if is_new else None

    def run_for_snapshotter(self, commands: Commands) -> tuple[NodeTraits, list[Output]]:
        """Run commands that depend on CRI's snapshotter.

        It is read in the first exec, and after each start of containerd, which may change it.
        """
        self.require_running()
        runtime = self.runtime
        if self._traits is not None:
            first, *others = commands(self._traits.snapshotter)
            start, *outputs = self.run_all([runtime.start, *first], *others)
            if parse_start(start) == self._traits.start:
                return self._traits, outputs
        traits_group = NodeTraits.commands(runtime)
        guess = runtime.snapshotter or containerd.DEFAULT_SNAPSHOTTER
        outputs = self.run_all(traits_group, *commands(guess))
        see_config = self.exec_command(*runtime.config)
        with self.naming_node_in_errors():
            traits = NodeTraits.read(outputs[: len(traits_group)], see_config, runtime.snapshotter)
        if (root := containerd.parse_root(outputs[1].text)) and root != runtime.root:
            self.runtime = runtime = attrs.evolve(runtime, root=root)
            traits = traits.with_space(self.run_all([runtime.free])[0])
        self._traits = traits
        if traits.snapshotter != guess:
            return traits, self.run_all(*commands(traits.snapshotter))
        return traits, outputs[len(traits_group) :]

    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery
    ) -> Survey:
        if not self.engine.streams_exec:
            return self.import_by_copy(layout, platform, question)
        feed = ("sh", "-c", _FEED, "imgload", *self._import_command(platform))
        return self._import_by(feed, question, layout)

    def import_by_copy(
        self, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery
    ) -> Survey:
        """Copy an OCI layout into the node, import it, and remove it; then survey the node.

        Files copied to /tmp or /run of a kind node disappear under their tmpfs (moby #22020). If
        imgload is killed, the next load into this node removes the folder.
        """
        self.before = PreviousNames()
        with self.temporary_folder() as folder:
            words = (folder, *self._import_command(platform))
            command = keepalive_command(_FROM_FOLDER, WHILE_DISK_FILLS, *words)
            self.run(["mkdir", "-p", folder])
            self.engine.put_archive(self.container.id, folder, layout)
            return self._import_by(command, question)

    def list_files(self, name: str, platform: Platform, *, hashes: bool = False) -> FileList:
        from imgload.clusters.nodes.files import LIST, parse_files  # noqa: PLC0415 - start-up

        snapshotter, ctr = self._known_traits.snapshotter, self.resolve_command(containerd.CTR)
        with self.temporary_folder() as folder:
            watched = OpenInput((), is_tar=False) if self.engine.streams_exec else None
            words = (
                *(folder, name, snapshotter, "" if platform.is_unspecified else str(platform)),
                *("sha256sum" if hashes else "", "watched" if watched else ""),
            )
            result = self._exec(("sh", "-c", LIST, "imgload", *words, *ctr), watched)
        try:
            return parse_files(result.stdout, hashes=hashes)
        except NodeUnusable as error:
            reason = result.message or error.message
            message = f"{self.name} does not list the files of {name}: {reason}"
            raise NodeUnusable(message, hint=WITHOUT_FILES, node=self.name) from error

    def _import_command(self, platform: Platform) -> tuple[str, ...]:
        """Return the import command of this node, which was surveyed before."""
        traits = self._known_traits
        local = traits.version >= (2, 0)
        command = containerd.import_command(traits.snapshotter, str(platform), local=local)
        return self.resolve_command(command)

    def _import_by(
        self,
        command: Sequence[str],
        question: SurveyQuery,
        stdin: Iterable[Chunk] | None = None,
        action: str = "ctr images import",
        folder: str = "",
    ) -> Survey:
        """Run a command that imports images, and survey the node in the same exec."""
        from imgload.clusters.nodes.survey_cache import write_survey  # noqa: PLC0415 - start-up

        self._forget_survey()
        self.before = before = PreviousNames(folder=folder)
        self._last = survey = self._change(command, action, question, before, stdin)
        if not self.runtime.selected:
            write_survey(self.container.id, survey)
        return survey

    def _forget_survey(self) -> None:
        from imgload.clusters.nodes.survey_cache import remove_survey  # noqa: PLC0415 - start-up

        self._last = None
        remove_survey(self.container.id)

    @property
    def gateways(self) -> Sequence[str]:
        return self.container.gateways if self.engine.endpoint.local else ()

    @property
    def pulls_discarded_layers(self) -> bool:
        traits = self._known_traits
        return not containerd.has_pull_service(traits.snapshotter, version=traits.version)

    def pull(
        self, urls: Sequence[str], names: Sequence[str], platform: Platform, question: SurveyQuery
    ) -> Survey:
        traits, runtime = self._known_traits, self.runtime
        command = containerd.pull_command(traits.snapshotter, str(platform), version=traits.version)
        local = containerd.local_pull_options(traits.snapshotter, version=traits.version)
        hosts = f"/tmp/imgload-{secrets.token_hex(8)}"  # noqa: S108 - on the node
        words = (hosts, " ".join(urls), "\n".join(names), " ".join(local))
        command = self.resolve_command(command)
        script = keepalive_command(REACH + _PULL, WHILE_DISK_FILLS, runtime.root, *words, *command)
        try:
            return self._import_by(script, question, action="ctr images pull", folder=hosts)
        except NodeStalled:  # an import may follow
            from imgload.clusters.nodes.rollback import end  # noqa: PLC0415 - start-up

            with suppress(ImgloadError):
                end(self, self.before)
            raise

    def tag(
        self, image: NamedImage, existing: str, target: Digest, before: PreviousNames
    ) -> Survey:
        ctr = self.resolve_command(containerd.CTR)
        command = containerd.tag_command(ctr, existing, target, image.name)
        return self._change(command, "ctr images tag", SurveyQuery.about([image]), before)

    def _change(
        self,
        command: Sequence[str],
        action: str,
        question: SurveyQuery,
        before: PreviousNames,
        stdin: Iterable[Chunk] | None = None,
    ) -> Survey:
        """Run a command, label the loaded images, and survey the node, all in one exec."""
        traits, runtime = self._known_traits, self.runtime
        labels = containerd.label_commands(question.loaded, time.time())
        first = [runtime.start, runtime.free, *labels]
        names = [*question.names, *map(str, question.image_ids)]
        previous: list[containerd.Record] = []

        def parse_names(images: Output) -> dict[str, Digest]:
            previous.extend(containerd.parse_records(images.text))
            return {record.name: record.target for record in previous}

        change = NameChange(action, command, containerd.images_command(names), parse_names, stdin)
        groups = [first, *question.commands(traits.snapshotter)]
        answers = self.run_change(change, groups, before)
        if parse_start(answers[0]) != traits.start:
            self._traits = None
            return self.survey(question)
        survey = self._read_survey(question, traits.with_space(answers[1]), answers[len(first) :])
        dropped = [
            record
            for record in previous
            if record.pinned and record.name in survey.records.keys() - survey.pinned
        ]
        if not dropped:
            return survey
        self._pin({record.name: record.own_pin for record in dropped})
        return self.survey_once(question)

    def rollback(
        self,
        image: Expected,
        surveyed: Survey,
        written: Digest | None = None,
        before: PreviousNames | None = None,
    ) -> None:
        from imgload.clusters.nodes.rollback import undo  # noqa: PLC0415 - start-up

        undo(self, surveyed, image, written, before or self.before)

    def remove_folder(self, folder: str) -> None:
        """Remove a folder, also one in which an image is mounted."""
        from imgload.clusters.nodes.files import CLEAN  # noqa: PLC0415 - start-up

        ctr, script = self.resolve_command(containerd.CTR), f"folder=$1; shift; {{ {CLEAN} }} 2>&1"
        self.run(["sh", "-c", script, "imgload", folder, *ctr])

    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        self.run_all(containerd.label_commands(loaded, time.time()))

    def stored_layers(
        self, content: ContentStore, diff_ids: Collection[Digest]
    ) -> Mapping[Digest, Descriptor]:
        """Read the descriptors in the node's own manifests: ctr prints only rounded sizes."""
        forms, layers = content.forms_of(diff_ids), dict[Digest, Descriptor]()
        referrers = {blob: m for m, blobs in content.layers.items() for blob in blobs}
        manifests = list({referrers[blob] for blob in forms})
        outputs = self.run_all(list(map(content_command, manifests)))
        for digest, output in zip(manifests, outputs, strict=True):
            if Digest.of(output.stdout) == digest:
                listed = Manifest.parse(output.stdout).layers
                layers |= {forms[x.digest]: x for x in listed if x.digest in forms}
        return layers

    def damaged_blobs(self, name: str) -> list[Digest]:
        survey = self.survey(SurveyQuery((name,), ()))
        target = survey.records.get(name)
        blobs = sorted(survey.content.blobs_under(target), key=str) if target else []
        reads = [self.resolve_command(content_command(blob)) for blob in blobs]
        progress = "now=$(cat /proc/$work/stat 2>/dev/null)"  # of sha256sum: large blobs take long
        outputs = self.run_all([keepalive_command('"$@" | sha256sum', progress, *r) for r in reads])
        if any(output.exit_status for output in outputs):
            message = f"{self.name}: sha256sum failed in it"
            raise NodeUnusable(message, hint="verify without the deep check")
        sums = [output.text.partition(" ")[0].strip() for output in outputs]
        return [blob for blob, value in zip(blobs, sums, strict=True) if value != blob.hex]

    def repair_hint(self, name: str, damaged: Sequence[Digest] = ()) -> str:
        command = (*containerd.CTR, "content", "rm", *map(str, damaged))
        remove = self.exec_command(*self.resolve_command(command))
        return f"{remove}, and load {name} again with --complete"

    def discard_layers(self, names: Sequence[str]) -> None:
        self._forget_survey()
        survey = self.survey_once(SurveyQuery(tuple(names), (), asks_cri=False))
        under = [survey.content.blobs_under(t) for n in names if (t := survey.records.get(n))]
        manifests = frozenset[Digest]().union(*under) & survey.content.configs.keys()
        commands = containerd.discard_commands(survey.content, manifests)
        if any(output.exit_status for output in self.run_all(commands)):
            message = f"containerd on {self.name} did not remove the layers"
            raise NodeUnusable(message, node=self.name)

    @property
    def pins_images(self) -> bool:
        return self._known_traits.version >= containerd.PINS_SINCE

    @property
    def pin_requirement(self) -> str:
        return "that needs containerd 1.7 or later"

    def pin(self, names: Sequence[str]) -> None:
        self._pin(dict.fromkeys(names, True))

    def _pin(self, names: Mapping[str, bool]) -> None:
        """Pin names; the value is whether the pin is imgload's."""
        ctr = self.resolve_command(containerd.CTR)
        outputs = self.run_all(
            [containerd.pin_command(ctr, n, own=own) for n, own in names.items()]
        )
        for name, output in zip(names, outputs, strict=True):
            if output.exit_status:
                raise self._failure(output.exit_status, output.text, f"pinning {name}")

    def unpin(self, names: Sequence[str]) -> None:
        ctr = self.resolve_command(containerd.CTR)
        self.run_all([containerd.unpin_command(ctr, name) for name in names])

    def images(self) -> Mapping[str, Digest]:
        records = containerd.parse_records(self.run(containerd.all_images()[0]).decode())
        return {record.name: record.target for record in records}

    def untag(self, names: Sequence[str]) -> None:
        self._forget_survey()
        self.run((*containerd.CTR, "images", "rm", "--", *names))

    def remove(self, names: Sequence[str]) -> None:
        self._forget_survey()
        self.run((*containerd.CTR, "images", "rm", "--sync", "--", *names))

    def free_bytes(self) -> int | None:
        outputs = result_or_error(partial(self.run_all, [self.runtime.free]))
        return None if isinstance(outputs, ImgloadError) else parse_free(outputs[0].text)

    @property
    def log_command(self) -> str:
        text = ""
        with suppress(ImgloadError):
            text = self._exec(self.runtime.find_log).stdout.decode(errors="replace")
        of_node = self.engine.logs_command(self.container.name)
        return containerd.log_command(text, self.exec_command, of_node)

    def resolve_command(self, command: Sequence[str]) -> tuple[str, ...]:
        return self.runtime.resolve_command(command)

    @property
    def _known_traits(self) -> NodeTraits:
        if self._traits is None:
            raise NodeUnusable(f"{self.name} was not surveyed", node=self.name)
        return self._traits


def is_containerd_node(node: NodeRuntime) -> TypeGuard[Node]:
    """Whether the pods of a node run on containerd, and not on a Docker that keeps images in it."""
    return isinstance(node, Node) and node.runtime_name == Node.runtime_name


def containerd_nodes(nodes: Iterable[NodeRuntime]) -> tuple[Node, ...]:
    """Return nodes whose runtime must be containerd; NodeUnusable if one has another."""
    with_containerd = []
    for node in nodes:
        if not is_containerd_node(node):
            node.require_running()
            hint = "load into it instead: imgload watch"
            raise NodeUnusable(f"{node.name} does not run containerd", hint=hint, node=node.name)
        with_containerd.append(node)
    return tuple(with_containerd)
