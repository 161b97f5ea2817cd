"""The interface of a node's container runtime."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs

from imgload.clusters.nodes.batch import Group, Output, batch_argv, in_parts, parse_batch
from imgload.clusters.nodes.survey import NamedImage, Survey, SurveyQuery
from imgload.core.errors import (
    EngineFailed,
    ImportFailed,
    NodeError,
    NodeFull,
    NodeNotRunning,
    NodeStalled,
    NodeUnusable,
)
from imgload.engines.base import Chunk, Container, ContainerHost, ExecResult
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

_NO_SPACE = "no space left on device"
_READ_ONLY = "read-only file system"
_NOT_THE_REASON = re.compile(r"imgload:|Error: \w+ unixpacket ")
"""The shell about a later command that does not exist, and Podman about input that is not read."""


@attrs.define
class PreviousNames:
    """The state of names right before a change.

    Args:
        records: the names that existed, with their targets; None if unknown.
        marker: is on the command line of the change, and on no other; empty if none was run.
        complete: whether the change got its whole input; before that an import names no image, and
            ends with its connection.
        since: when the change began, in seconds since 1970.

    """

    records: Mapping[str, Digest] | None = None
    marker: str = ""
    complete: bool = True
    since: float = attrs.field(factory=time.time)


@attrs.define
class NodeRuntime(ABC):
    """A node, and the image operations of its container runtime.

    `Node` implements them for containerd; subclass this for another runtime. Operations raise
    NodeNotRunning, NodeFull, NodeStalled, NodeUnusable or ImportFailed.

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
        """Read which images, layers and names the node has."""

    @abstractmethod
    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery
    ) -> Survey:
        """Import an OCI layout tar while it streams in, label its images, and survey the node."""

    @abstractmethod
    def tag(
        self, image: NamedImage, existing: str, target: Digest, before: PreviousNames
    ) -> Survey:
        """Tag an image, and survey the node.

        Args:
            image: the image, with the name to add.
            existing: a name that it has on the node; the same one makes CRI read it again.
            target: the digest that `existing` must point to; otherwise nothing changes.
            before: receives the targets that the names had until then.

        """

    @abstractmethod
    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        """Label images as loaded by imgload, each by a name and its image ID."""

    @abstractmethod
    def images(self) -> Mapping[str, Digest]:
        """Return all names on the node, with the digests of their manifests or indexes."""

    @abstractmethod
    def untag(self, names: Sequence[str]) -> None:
        """Remove names; unused content is deleted later."""

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Remove names, and wait until unused content is deleted."""

    def resolve_command(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return the command line of a command on this node."""
        return tuple(command)

    def run(self, argv: Sequence[str]) -> bytes:
        """Run one command, called by its usual name, and return its output.

        Raises:
            ImportFailed: when it fails.

        """
        result = self._exec(self.resolve_command(argv))
        if result.exit_status:
            raise self._failure(result.exit_status, result.message, " ".join(argv[:5]))
        return result.stdout

    def run_all(self, *groups: Group) -> list[Output]:
        """Run commands, called by their usual names, in as few execs as possible.

        Groups run in parallel. A command that fails does not stop the others.
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
        except NodeStalled as error:
            raise NodeStalled(f"{self.name}: {error.message}", hint=self._logs) from error
        except EngineFailed as error:
            raise NodeUnusable(f"{self.name}: {error.message}", hint=self._logs) from error

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
        """Add the node's name to errors of parsers."""
        try:
            yield
        except NodeUnusable as error:
            hint = error.hint or self._logs
            raise NodeUnusable(f"{self.name}: {error.message}", hint=hint) from error

    def _shell_failed(self, result: ExecResult) -> NodeUnusable:
        message = f"{self.name}: a shell in it failed: {result.message}"
        return NodeUnusable(message, hint=self._logs)

    def _failure(self, status: int, message: str, action: str) -> NodeError:
        lines = [line for line in message.splitlines() if line.strip()]
        reasons = [line for line in lines if not _NOT_THE_REASON.match(line)] or lines
        reason = reasons[-1].strip() if reasons else "no output"
        command = f"{self.engine.name} exec {self.name}"
        if _NO_SPACE in message:
            return NodeFull(
                f"{self.name} ran out of disk space: {reason}",
                hint=f"see what fills it: {command} df -h /var"
                " (and df -i /var: its inodes); imgload prune removes old builds",
            )
        mounts = (
            f"find the disk, and the cause: {command} mount;"
            f" after the repair: {self.engine.name} restart {self.name}"
        )
        return ImportFailed(
            f"{action} on {self.name} failed with exit status {status}: {reason}",
            hint=mounts if _READ_ONLY in message else self._logs,
        )

    @property
    def _logs(self) -> str:
        return f"{self.engine.name} logs {self.container.name}"
