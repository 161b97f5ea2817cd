"""A node: the interface of its container runtime, and the one for containerd."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import Group, Output, batch_argv, in_parts, parse_batch
from imgload.clusters.nodes.containerd import CONTAINERD, LOOK, Containerd, parse_look
from imgload.clusters.nodes.survey import (
    NamedImage,
    NodeTraits,
    Survey,
    SurveyQuery,
    parse_free,
    parse_start,
)
from imgload.core.errors import (
    EngineFailed,
    ImportFailed,
    NodeError,
    NodeFull,
    NodeNotRunning,
    NodeStalled,
    NodeUnusable,
)
from imgload.core.parallel import result_or_error
from imgload.engines.base import Chunk, Container, ContainerHost, ExecResult
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

_NOT_THE_REASON = re.compile(r"imgload:|Error: \w+ unixpacket ")
"""The shell about a later command that does not exist, and Podman about input that is not read."""
_FEED = '"$@"; status=$?; if [ $status = 0 ]; then cat >/dev/null; else sleep 0.3; fi; exit $status'
"""Reads the input that the command left; if that failed, lets its last output through first, since
Podman drops it when the input breaks."""
_MIB = 1 << 20
Commands = Callable[[str], Sequence[Group]]
"""Groups of commands that depend on CRI's snapshotter."""


@attrs.define
class PreviousNames:
    """The state of a node's names right before a change; the change fills it in.

    `records` are the names that existed, with their targets; None if unknown. `marker` is on the
    command line of the change, and on no other; it is empty if none was run. `complete` is whether
    the change got its whole input; before that an import names no image, and ends with its
    connection. `since` is when the change began, in seconds since 1970.
    """

    records: Mapping[str, Digest] | None = None
    marker: str = ""
    complete: bool = True
    since: float = attrs.field(factory=time.time)


@attrs.define(eq=False)
class NodeRuntime(ABC):
    """A node, and the image operations of its container runtime.

    `Node` implements them for containerd; subclass this for another runtime. Every operation may
    raise NodeNotRunning, NodeFull, NodeStalled, NodeUnusable or ImportFailed.

    Args:
        name: the name of the node's container.
        engine: the engine that runs it.
        container: the container, in its state when it was listed.

    """

    name: str
    engine: ContainerHost
    container: Container

    @abstractmethod
    def survey(self, question: SurveyQuery) -> Survey:
        """Return the images, layers and names on the node, as far as `question` selects them."""

    @abstractmethod
    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery
    ) -> Survey:
        """Import images, label them as loaded by imgload, and return a survey from afterwards.

        Args:
            layout: a tar with an OCI layout, which is imported while it streams in.
            platform: the platform of the images; others in the layout are not imported.
            question: the images, by their names and IDs.

        """

    @abstractmethod
    def tag(
        self, image: NamedImage, existing: str, target: Digest, before: PreviousNames
    ) -> Survey:
        """Tag an image, and return a survey from afterwards.

        Args:
            image: the image, with the name to add.
            existing: a name that it has on the node; the same one makes CRI read it again.
            target: the digest that `existing` must point to; otherwise nothing changes.
            before: is filled with the state of the names until then, for a rollback.

        """

    @abstractmethod
    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        """Label images as loaded by imgload, so that `prune` may remove them.

        Args:
            loaded: a name and the image ID of each image.

        """

    def resolve_command(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return the command line of a command that is called by its usual name."""
        return tuple(command)

    def run(self, argv: Sequence[str]) -> bytes:
        """Return the output of a command, called by its usual name; ImportFailed if it fails."""
        result = self._exec(self.resolve_command(argv))
        if result.exit_status:
            raise self._failure(result.exit_status, result.message, " ".join(argv[:5]))
        return result.stdout

    def run_all(self, *groups: Group) -> list[Output]:
        """Run commands, called by their usual names, in as few execs as possible.

        Groups run in parallel, their commands in sequence; one that fails does not stop the others.
        """
        return self._run_parts(self._resolve_commands(groups))

    def _resolve_commands(self, groups: Sequence[Group]) -> list[Group]:
        return [[self.resolve_command(command) for command in group] for group in groups]

    def _run_parts(self, groups: Sequence[Group]) -> list[Output]:
        outputs: list[Output] = []
        for part in in_parts(groups):
            argv, marker = batch_argv(*part)
            result = self._exec(argv)
            count = sum(map(len, part))
            answers = parse_batch(result.stdout, marker, count)
            if len(answers) < count:
                raise self._shell_failed(result)
            outputs += answers
        return outputs

    def _exec(self, argv: Sequence[str], stdin: Iterable[Chunk] | None = None) -> ExecResult:
        try:
            return self.engine.exec(self.container.id, argv, stdin)
        except (NodeStalled, EngineFailed) as error:
            kind = NodeStalled if isinstance(error, NodeStalled) else NodeUnusable
            raise kind(f"{self.name}: {error.message}", hint=self._logs) from error

    def require_running(self) -> None:
        """Raise NodeNotRunning when the container is stopped or paused."""
        if self.container.state != "running":
            start = "unpause" if self.container.state == "paused" else "start"
            raise NodeNotRunning(
                f"{self.name} is {self.container.state}",
                hint=f"{self.engine.name} {start} {self.container.name}",
            )

    @contextmanager
    def naming_node_in_errors(self) -> Iterator[None]:
        """Add the node's name to each NodeUnusable that is raised within."""
        try:
            yield
        except NodeUnusable as error:
            hint = error.hint or self._logs
            raise NodeUnusable(f"{self.name}: {error.message}", hint=hint) from error

    def _shell_failed(self, result: ExecResult) -> NodeUnusable:
        return NodeUnusable(f"{self.name}: a shell in it failed: {result.message}", hint=self._logs)

    def _failure(self, status: int, message: str, action: str) -> NodeError:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        reasons = [line for line in lines if not _NOT_THE_REASON.match(line)] or lines
        reason = reasons[-1] if reasons else "no output"
        command = f"{self.engine.name} exec {self.name}"
        if "no space left on device" in message:
            return NodeFull(
                f"{self.name} ran out of disk space: {reason}",
                hint=f"see what fills it: {command} df -h /var"
                " (and df -i /var: its inodes); imgload prune removes old builds",
            )
        hint = self._logs
        if "read-only file system" in message:
            restart = f"{self.engine.name} restart {self.name}"
            hint = f"find the disk, and the cause: {command} mount; after the repair: {restart}"
        text = f"{action} on {self.name} failed with exit status {status}: {reason}"
        return ImportFailed(text, hint=hint)

    @property
    def _logs(self) -> str:
        return f"{self.engine.name} logs {self.container.name}"


@attrs.define(eq=False)
class Node(NodeRuntime):
    """A node with containerd; `runtime` is None to detect it, and `role` may be empty."""

    runtime: Containerd | None = CONTAINERD
    role: str = ""
    before: PreviousNames = attrs.field(factory=PreviousNames, init=False)
    """The state of names before the last import."""
    _traits: NodeTraits | None = None
    _last: tuple[SurveyQuery, Survey] | None = None

    def survey(self, question: SurveyQuery) -> Survey:
        survey = self.survey_once(question)
        targets = survey.named_otherwise(question)
        return self.survey_once(attrs.evolve(question, targets=targets)) if targets else survey

    def survey_once(self, question: SurveyQuery) -> Survey:
        """Survey the node without looking for other names of the images."""
        traits, outputs = self.run_for_snapshotter(question.commands)
        with self.naming_node_in_errors():
            return Survey.read(question, traits, outputs)

    def cached_survey(self, question: SurveyQuery) -> Survey | None:
        """Return the survey after the last import, if it can settle what to send.

        If blobs were collected since, the import's own verification fails. An image that the node
        may have needs a new survey, and so do names that the last import was not about.
        """
        if self._last is None:
            return None
        last_question, survey = self._last
        is_new = survey.content.blobs.isdisjoint(question.image_ids)
        usable = is_new and set(question.names) <= set(last_question.names)
        return attrs.evolve(survey, fresh=False) if usable else None

    def require_cri(self, survey: Survey, *names: str) -> None:
        """Raise NodeUnusable if crictl failed on a name: nothing is known about the image then."""
        for name in names:
            if (answer := survey.cri.get(name)) and answer.failure:
                raise NodeUnusable(
                    f"{self.name}: CRI gives no answer about {name}: {answer.failure}",
                    hint=f"{self.engine.name} exec {self.name} crictl info",
                )

    def run_for_snapshotter(self, commands: Commands) -> tuple[NodeTraits, list[Output]]:
        """Run commands that depend on CRI's snapshotter.

        It is read in the first exec, and after each start of containerd, which may change it.
        """
        self.require_running()
        runtime = self._known_runtime
        if self._traits is not None:
            first, *others = commands(self._traits.snapshotter)
            start, *outputs = self.run_all([runtime.start, *first], *others)
            if parse_start(start) == self._traits.start:
                return self._traits, outputs
        traits_group, guess = NodeTraits.commands(runtime), containerd.DEFAULT_SNAPSHOTTER
        outputs = self.run_all(traits_group, *commands(guess))
        see_config = f"{self.engine.name} exec {self.name} {' '.join(runtime.config)}"
        with self.naming_node_in_errors():
            self._traits = traits = NodeTraits.read(outputs[: len(traits_group)], see_config)
        if traits.snapshotter != guess:
            return traits, self.run_all(*commands(traits.snapshotter))
        return traits, outputs[len(traits_group) :]

    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery
    ) -> Survey:
        feed = ("sh", "-c", _FEED, "imgload", *self.import_command(platform))
        return self.import_by(feed, question, layout)

    def import_command(self, platform: Platform) -> tuple[str, ...]:
        """Return the import command of this node, which was surveyed before."""
        traits = self._known_traits
        local = traits.version >= (2, 0)
        command = containerd.import_command(traits.snapshotter, str(platform), local=local)
        return self.resolve_command(command)

    def import_by(
        self, command: Sequence[str], question: SurveyQuery, stdin: Iterable[Chunk] | None = None
    ) -> Survey:
        """Run a command that imports images, and survey the node in the same exec."""
        self._last = None
        self.before = before = PreviousNames()
        survey = self._change(command, "ctr images import", question, before, stdin)
        self._last = (question, survey)
        return survey

    def tag(
        self, image: NamedImage, existing: str, target: Digest, before: PreviousNames
    ) -> Survey:
        ctr = self.resolve_command(containerd.CTR)
        command = containerd.tag_command(ctr, existing, target, image.name)
        unlabeled = attrs.evolve(SurveyQuery.about([image]), loaded=())
        return self._change(command, "ctr images tag", unlabeled, before)

    def _change(
        self,
        command: Sequence[str],
        action: str,
        question: SurveyQuery,
        before: PreviousNames,
        stdin: Iterable[Chunk] | None = None,
    ) -> Survey:
        """Run a command, label the loaded images, and survey the node, all in one exec."""
        traits, start = self._known_traits, self._known_runtime.start
        labels = containerd.label_commands(question.loaded, time.time())
        groups = self._resolve_commands([[start, *labels], *question.commands(traits.snapshotter)])
        fits = len(list(in_parts(groups))) == 1
        batched = groups if fits else []
        names = [*question.names, *map(str, question.image_ids)]
        list_records = self.resolve_command(containerd.images_command(names))
        argv, before.marker = batch_argv(*batched, before=[list_records, command])
        result = self._exec(argv, stdin and _fed(stdin, before))
        count = 2 + sum(map(len, batched))
        outputs = parse_batch(result.stdout, before.marker, count)
        if outputs and outputs[0].exit_status == 0:
            records = containerd.parse_records(outputs[0].text)
            before.records = {record.name: record.target for record in records}
        if len(outputs) < count or outputs[1].exit_status:
            status = outputs[1].exit_status if outputs[1:] else result.exit_status
            raise self._failure(status, attrs.evolve(result, stdout=b"").message, action)
        answers = outputs[2:] if fits else self._run_parts(groups)
        if parse_start(answers[0]) != traits.start:
            self._traits = None
            return self.survey(question)
        with self.naming_node_in_errors():
            return Survey.read(question, traits, answers[1 + len(labels) :])

    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        self.run_all(containerd.label_commands(loaded, time.time()))

    def resolve_command(self, command: Sequence[str]) -> tuple[str, ...]:
        return self._known_runtime.resolve_command(command)

    @property
    def _known_traits(self) -> NodeTraits:
        if self._traits is None:
            raise NodeUnusable(f"{self.name} was not surveyed")
        return self._traits

    @property
    def _known_runtime(self) -> Containerd:
        if self.runtime is None:
            result = self._exec(LOOK)
            if result.exit_status:
                raise self._shell_failed(result)
            with self.naming_node_in_errors():
                self.runtime = parse_look(result.stdout.decode(errors="replace"))
        return self.runtime


def _fed(stdin: Iterable[Chunk], before: PreviousNames) -> Iterator[Chunk]:
    before.complete = False
    yield from stdin
    before.complete = True


def require_disk_space(node: Node, free: int | None, needed: int) -> None:
    """Raise NodeFull if an image does not fit; free space (None: unknown) is read again first."""
    if free is None or free >= needed:
        return
    outputs = result_or_error(partial(node.run_all, [(node.runtime or CONTAINERD).free]))
    free = None if isinstance(outputs, Exception) else parse_free(outputs[0].text)
    if free is not None and free < needed:
        raise NodeFull(
            f"{node.name} has {free / _MIB:.0f} MiB free,"
            f" and at least {needed / _MIB:.0f} MiB are needed",
            hint=f"see what fills it: {node.engine.name} exec {node.name} df -h /var",
        )
