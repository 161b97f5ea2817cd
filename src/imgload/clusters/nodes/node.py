"""A node: a container in which containerd runs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import Group, Output, batch_argv, in_parts, parse_batch
from imgload.clusters.nodes.runtime import CONTAINERD, Runtime, look_command, parse_look
from imgload.clusters.nodes.survey import (
    Question,
    Survey,
    Traits,
    names_command,
    parse_start,
    read_state,
    read_traits,
    state_commands,
    trait_commands,
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
from imgload.engines.base import Chunk, Container, Engine, ExecResult
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

_FEED = '"$@"; status=$?; if [ $status = 0 ]; then cat >/dev/null; else sleep 0.3; fi; exit $status'
"""Reads to the end what the command left; on failure lets its last words through first, since
Podman drops them when the input breaks."""
_LOCAL_IMPORT = (2, 0)
NO_SPACE = "no space left on device"
_READ_ONLY = "read-only file system"
_NOT_THE_REASON = re.compile(r"imgload:|Error: \w+ unixpacket ")
"""The shell on a later command that is not there, and Podman on input that nobody takes."""
Commands = Callable[[str], Sequence[Group]]
"""Groups of commands that depend on CRI's snapshotter."""


@attrs.define
class Before:
    """What names led to right before a change of theirs.

    Args:
        records: target by name, of those names that were there; None where it was not told.
        marker: what the command line of the change has, and no other; empty where none was run.
        complete: whether it got all of its input; before that an import names no image, and ends
            with its connection.
        since: when the change began, in seconds since 1970.

    """

    records: Mapping[str, Digest] | None = None
    marker: str = ""
    complete: bool = True
    since: float = attrs.field(factory=time.time)


@attrs.define
class Node:
    """A node of a cluster, on the engine that runs its container.

    Args:
        name: the container's.
        engine: that runs it.
        container: as it was when it was found.
        runtime: its containerd; None where it has to be looked for.
        role: what the cluster's tool calls its part, as ``control-plane``; may be empty.

    """

    name: str
    engine: Engine
    container: Container
    runtime: Runtime | None = CONTAINERD
    role: str = ""
    before: Before = attrs.field(factory=Before, init=False)
    """What names led to before the last import."""
    _traits: Traits | None = None
    _last: tuple[Question, Survey] | None = None

    def survey(self, question: Question) -> Survey:
        """Read what the node has.

        Raises:
            NodeNotRunning: when the container is stopped or paused.
            NodeUnusable: when containerd cannot be asked.

        """
        self.require_running()
        found = self._survey(question)
        targets = found.named_otherwise(question)
        return self._survey(attrs.evolve(question, targets=targets)) if targets else found

    def require_cri(self, survey: Survey, *names: str) -> None:
        """Raise NodeUnusable when crictl failed on a name: that says nothing about the image."""
        for name in names:
            if (answer := survey.cri.get(name)) and answer.failure:
                raise NodeUnusable(
                    f"{self.name}: CRI gives no answer about {name}: {answer.failure}",
                    hint=f"{self.engine.name} exec {self.name} crictl info",
                )

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Name the node in what is wrong with its answers."""
        try:
            yield
        except NodeUnusable as error:
            hint = error.hint or self._look
            raise NodeUnusable(f"{self.name}: {error.message}", hint=hint) from error

    def expected(self, question: Question) -> Survey | None:
        """Return what the node had after its last import, if that can settle what to send.

        What was collected since shows in the import's own proof. An image that the node may have
        is read anew, and so are names that the last import was not about.
        """
        if self._last is None:
            return None
        asked, found = self._last
        new = found.content.blobs.isdisjoint(question.image_ids)
        usable = new and set(question.names) <= set(asked.names)
        return attrs.evolve(found, fresh=False) if usable else None

    def _survey(self, question: Question) -> Survey:
        traits, outputs = self.ask(partial(state_commands, question))
        with self.understanding():
            return read_state(question, traits, outputs)

    def ask(self, commands: Commands) -> tuple[Traits, list[Output]]:
        """Run what depends on CRI's snapshotter; the first time, find that out in the same exec.

        It is found out again once containerd was started again: its configuration may be another.
        """
        if self._traits is not None:
            beginning, *rest = commands(self._traits.snapshotter)
            start, *outputs = self.run_all([self._known_runtime.start, *beginning], *rest)
            if parse_start(start) == self._traits.start:
                return self._traits, outputs
        first, guess = trait_commands(self._known_runtime), containerd.DEFAULT_SNAPSHOTTER
        outputs = self.run_all(first, *commands(guess))
        config = " ".join(self._known_runtime.config)
        with self.understanding():
            see = f"{self.engine.name} exec {self.name} {config}"
            self._traits = traits = read_traits(outputs[: len(first)], see)
        if traits.snapshotter != guess:
            return traits, self.run_all(*commands(traits.snapshotter))
        return traits, outputs[len(first) :]

    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: Question
    ) -> Survey:
        """Import an OCI layout tar as it streams in, and survey the node in the same exec.

        Raises:
            NodeFull: when the node's disk is full.
            ImportFailed: when ctr refuses it.

        """
        feed = ("sh", "-c", _FEED, "imgload", *self.import_command(platform))
        return self.import_by(feed, question, layout)

    def import_by(
        self,
        command: Sequence[str],
        question: Question,
        stdin: Iterable[Chunk] | None = None,
    ) -> Survey:
        """Run a command that imports images, and survey the node in the same exec.

        Raises:
            NodeFull: when the node's disk is full.
            ImportFailed: when the command fails.

        """
        self._last = None
        self.before = before = Before()
        survey = self._change(command, "ctr images import", question, before, stdin)
        self._last = (question, survey)
        return survey

    def rename(self, command: Sequence[str], question: Question, before: Before) -> Survey:
        """Run a command that changes an image's names, and survey the node in the same exec.

        Args:
            command: what to run.
            question: what to survey.
            before: is told what the names led to until then.

        Raises:
            ImportFailed: when it fails.

        """
        unmarked = attrs.evolve(question, loaded=())
        return self._change(self.spelled(command), "ctr images tag", unmarked, before)

    def _change(
        self,
        command: Sequence[str],
        doing: str,
        question: Question,
        before: Before,
        stdin: Iterable[Chunk] | None = None,
    ) -> Survey:
        """Run a command, and survey the node in the same exec; what is loaded is marked."""
        from imgload.clusters.nodes.labels import mark_commands  # noqa: PLC0415 - start-up

        traits, start = self._known_traits, self._known_runtime.start
        marks = mark_commands(question.loaded, time.time())
        groups = self._spelled([[start, *marks], *state_commands(question, traits.snapshotter)])
        beside = groups if len(list(in_parts(groups))) == 1 else []
        names = self.spelled(names_command(question))
        argv, before.marker = batch_argv(*beside, before=[names, command])
        result = self._exec(argv, stdin and _fed(stdin, before))
        count = 2 + sum(map(len, beside))
        outputs = parse_batch(result.stdout, before.marker, count)
        if outputs and outputs[0].exit_status == 0:
            before.records = containerd.parse_images(outputs[0].text)
        if len(outputs) == count and outputs[1].exit_status == 0:
            told = outputs[2:] if beside else self._run_parts(groups)
            if parse_start(told[0]) != traits.start:
                self._traits = None
                return self.survey(question)
            with self.understanding():
                return read_state(question, traits, told[1 + len(marks) :])
        status = outputs[1].exit_status if outputs[1:] else result.exit_status
        raise self._failure(status, attrs.evolve(result, stdout=b"").message, doing)

    def mark(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        """Mark images as loaded by imgload; `import_layout` does so itself.

        Args:
            loaded: names, each with the image ID it was loaded with.

        """
        from imgload.clusters.nodes.labels import mark_commands  # noqa: PLC0415 - start-up

        if loaded:
            self.run_all(mark_commands(loaded, time.time()))

    def import_command(self, platform: Platform) -> tuple[str, ...]:
        """Return the import command that suits this node, which was surveyed before."""
        traits = self._known_traits
        local = traits.version >= _LOCAL_IMPORT
        return self.spelled(
            containerd.import_command(traits.snapshotter, str(platform), local=local)
        )

    def spelled(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return a command as this node has it."""
        return self._known_runtime.spelled(command)

    @property
    def snapshotter(self) -> str:
        """CRI's; the node was surveyed before."""
        return self._known_traits.snapshotter

    @property
    def _known_traits(self) -> Traits:
        if self._traits is None:
            raise NodeUnusable(f"{self.name} was not surveyed")
        return self._traits

    @property
    def _known_runtime(self) -> Runtime:
        if self.runtime is None:
            result = self._exec(look_command())
            if result.exit_status:
                raise self._shell_failed(result)
            with self.understanding():
                self.runtime = parse_look(result.stdout.decode(errors="replace"))
        return self.runtime

    def run(self, argv: Sequence[str]) -> bytes:
        """Run one command and return its output; its failure is ImportFailed.

        Programs are called by their usual names, here and in `run_all`.
        """
        result = self._exec(self._known_runtime.spelled(argv))
        if result.exit_status:
            raise self._failure(result.exit_status, result.message, " ".join(argv[:5]))
        return result.stdout

    def run_all(self, *groups: Group) -> list[Output]:
        """Run several commands in one exec, groups side by side.

        A failing command does not stop the others. What is too much for one exec takes several.
        """
        return self._run_parts(self._spelled(groups))

    def _run_parts(self, groups: Sequence[Group]) -> list[Output]:
        return [output for part in in_parts(groups) for output in self._run_part(part)]

    def _run_part(self, groups: Sequence[Group]) -> list[Output]:
        argv, marker = batch_argv(*groups)
        result = self._exec(argv)
        count = sum(map(len, groups))
        outputs = parse_batch(result.stdout, marker, count)
        if len(outputs) < count:
            raise self._shell_failed(result)
        return outputs

    def _shell_failed(self, result: ExecResult) -> NodeUnusable:
        message = f"{self.name}: a shell in it failed: {result.message}"
        return NodeUnusable(message, hint=self._look)

    def _spelled(self, groups: Sequence[Group]) -> list[Group]:
        return [[self._known_runtime.spelled(command) for command in group] for group in groups]

    def _exec(self, argv: Sequence[str], stdin: Iterable[Chunk] | None = None) -> ExecResult:
        try:
            return self.engine.exec(self.container.id, argv, stdin)
        except NodeStalled as error:
            raise NodeStalled(f"{self.name}: {error.message}", hint=self._look) from error
        except EngineFailed as error:
            raise NodeUnusable(f"{self.name}: {error.message}", hint=self._look) from error

    def require_running(self) -> None:
        """Raise NodeNotRunning when the container is stopped or paused."""
        if self.container.state != "running":
            start = "unpause" if self.container.state == "paused" else "start"
            raise NodeNotRunning(
                f"{self.name} is {self.container.state}",
                hint=f"{self.engine.name} {start} {self.container.name}",
            )

    def _failure(self, status: int, message: str, doing: str) -> NodeError:
        if NO_SPACE in message:
            return NodeFull(
                f"{self.name} ran out of disk space: {_last_line(message)}",
                hint=f"see what fills it: {self.engine.name} exec {self.name} df -h /var"
                " (and df -i /var: its inodes); imgload prune removes old builds",
            )
        mounts = (
            f"see which disk, and why: {self.engine.name} exec {self.name} mount;"
            f" when it is mended: {self.engine.name} restart {self.name}"
        )
        return ImportFailed(
            f"{doing} on {self.name} failed with exit status {status}: {_last_line(message)}",
            hint=mounts if _READ_ONLY in message else self._look,
        )

    @property
    def _look(self) -> str:
        return f"{self.engine.name} logs {self.container.name}"


def _fed(stdin: Iterable[Chunk], before: Before) -> Iterator[Chunk]:
    before.complete = False
    yield from stdin
    before.complete = True


def _last_line(text: str) -> str:
    """Return the last words of a program, or else of what runs it."""
    lines = [line for line in text.splitlines() if line.strip()]
    others = [line for line in lines if not _NOT_THE_REASON.match(line)] or lines
    return others[-1].strip() if others else "it said nothing"
