"""A node: a container in which containerd runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import attrs

from imgload.engines.base import Chunk, Container, Engine, ExecResult
from imgload.errors import (
    EngineFailed,
    ImportFailed,
    NodeError,
    NodeFull,
    NodeNotRunning,
    NodeStalled,
    NodeUnusable,
)
from imgload.nodes import containerd
from imgload.nodes.batch import Group, Output, batch_argv, in_parts, parse_batch
from imgload.nodes.runtime import CONTAINERD, Runtime, look_command, parse_look
from imgload.nodes.survey import (
    Question,
    Survey,
    Traits,
    read_state,
    read_traits,
    state_commands,
    trait_commands,
)
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

_FEED = '"$@"; status=$?; if [ $status = 0 ]; then cat >/dev/null; else sleep 0.3; fi; exit $status'
"""Reads to the end what the command left; on failure lets its last words through first, since
Podman drops them when the input breaks."""
_LOCAL_IMPORT = (2, 0)
NO_SPACE = "no space left on device"
Commands = Callable[[str], Sequence[Group]]
"""Groups of commands that depend on CRI's snapshotter."""


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
    _traits: Traits | None = None
    _last: tuple[Question, Survey] | None = None

    def survey(self, question: Question) -> Survey:
        """Read what the node has.

        Raises:
            NodeNotRunning: when the container is stopped or paused.
            NodeUnusable: when containerd cannot be asked.

        """
        with self.asking():
            found = self._survey(question)
            targets = found.named_otherwise(question)
            if targets:
                found = self._state(attrs.evolve(question, targets=targets), found.traits)
        return found

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Require a running node, and name it in what goes wrong within."""
        self._require_running()
        try:
            yield
        except NodeUnusable as error:
            if error.message.startswith(self.name):
                raise
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
        return found if new and set(question.names) <= set(asked.names) else None

    def _survey(self, question: Question) -> Survey:
        traits, outputs = self.ask(partial(state_commands, question))
        return read_state(question, traits, outputs)

    def ask(self, commands: Commands) -> tuple[Traits, list[Output]]:
        """Run what depends on CRI's snapshotter; the first time, find that out in the same exec."""
        if self._traits is not None:
            return self._traits, self.run_all(*commands(self._traits.snapshotter))
        first, guess = trait_commands(self._known_runtime), containerd.DEFAULT_SNAPSHOTTER
        outputs = self.run_all(first, *commands(guess))
        self._traits = traits = read_traits(outputs[: len(first)])
        if traits.snapshotter != guess:
            return traits, self.run_all(*commands(traits.snapshotter))
        return traits, outputs[len(first) :]

    def _state(self, question: Question, traits: Traits) -> Survey:
        outputs = self.run_all(*state_commands(question, traits.snapshotter))
        return read_state(question, traits, outputs)

    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: Question
    ) -> Survey:
        """Import an OCI layout tar as it streams in, and survey the node in the same exec.

        Raises:
            NodeFull: when the node's disk is full.
            ImportFailed: when ctr refuses it.

        """
        traits = self._known_traits
        self._last = None
        feed = ("sh", "-c", _FEED, "imgload", *self.import_command(platform))
        from imgload.nodes.marks import mark_commands  # noqa: PLC0415 - start-up

        marks = mark_commands(question.loaded, time.time())
        groups = self._spelled([marks, *state_commands(question, traits.snapshotter)])
        beside = groups if len(list(in_parts(groups))) == 1 else []
        argv, marker = batch_argv(*beside, before=feed)
        result = self._exec(argv, layout)
        outputs = parse_batch(result.stdout, marker, 1 + sum(map(len, beside)))
        if len(outputs) == 1 + sum(map(len, beside)) and outputs[0].exit_status == 0:
            told = outputs[1:] if beside else self._run_parts(groups)
            survey = read_state(question, traits, told[len(marks) :])
            self._last = (question, survey)
            return survey
        status = outputs[0].exit_status if outputs else result.exit_status
        raise self._failure(status, result.message, "ctr images import")

    def mark(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        """Mark images as loaded by imgload; `import_layout` does so itself.

        Args:
            loaded: names, each with the image ID it was loaded with.

        """
        from imgload.nodes.marks import mark_commands  # noqa: PLC0415 - start-up

        if loaded:
            self.run_all(mark_commands(loaded, time.time()))

    def import_command(self, platform: Platform) -> tuple[str, ...]:
        """Return the import command that suits this node, which was surveyed before."""
        traits = self._known_traits
        local = traits.version >= _LOCAL_IMPORT
        command = containerd.import_command(traits.snapshotter, str(platform), local=local)
        return self._known_runtime.spelled(command)

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
                raise NodeUnusable(f"a shell in it failed: {result.message}")
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
            raise NodeUnusable(f"{self.name}: a shell in it failed: {result.message}")
        return outputs

    def _spelled(self, groups: Sequence[Group]) -> list[Group]:
        return [[self._known_runtime.spelled(command) for command in group] for group in groups]

    def _exec(self, argv: Sequence[str], stdin: Iterable[Chunk] | None = None) -> ExecResult:
        try:
            return self.engine.exec(self.container.id, argv, stdin)
        except NodeStalled as error:
            raise NodeStalled(f"{self.name}: {error.message}", hint=self._look) from error
        except EngineFailed as error:
            raise NodeUnusable(f"{self.name}: {error.message}", hint=self._look) from error

    def _require_running(self) -> None:
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
                hint=f"see what fills it: {self.engine.name} exec {self.name} crictl images",
            )
        return ImportFailed(
            f"{doing} on {self.name} failed with exit status {status}: {_last_line(message)}",
            hint=self._look,
        )

    @property
    def _look(self) -> str:
        return f"{self.engine.name} logs {self.container.name}"


def _last_line(text: str) -> str:
    """Return the last words of a program, or else of the shell: that may lack a later command."""
    lines = [line for line in text.splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith("imgload:")] or lines
    return others[-1].strip() if others else "it said nothing"
