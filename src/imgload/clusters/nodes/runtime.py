"""The interface of a node's container runtime, and where containerd is on a node."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from imgload.clusters.nodes.batch import Group, Output, batch_argv, in_parts, parse_batch
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

if TYPE_CHECKING:
    from imgload.clusters.nodes.node import Before
    from imgload.clusters.nodes.survey import Question, Survey
    from imgload.oci.image import Image

Command = tuple[str, ...]
_NO_SPACE = "no space left on device"
_READ_ONLY = "read-only file system"
_NOT_THE_REASON = re.compile(r"imgload:|Error: \w+ unixpacket ")
"""The shell about a later command that does not exist, and Podman about input that is not read."""


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
    engine: Engine
    container: Container

    @abstractmethod
    def survey(self, question: Question) -> Survey:
        """Read which images, layers and names the node has."""

    @abstractmethod
    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: Question
    ) -> Survey:
        """Import an OCI layout tar while it streams in, label its images, and survey the node."""

    @abstractmethod
    def tag(self, image: Image, existing: str, target: Digest, before: Before) -> Survey:
        """Tag an image, and survey the node.

        Args:
            image: the image, with the name to add.
            existing: a name that it has on the node; the same one makes CRI read it again.
            target: the digest that `existing` must point to; otherwise nothing changes.
            before: receives the targets that the names had until then.

        """

    @abstractmethod
    def mark(self, loaded: Sequence[tuple[str, Digest]]) -> None:
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

    def spelled(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return the command line of a command on this node."""
        return tuple(command)

    def run(self, argv: Sequence[str]) -> bytes:
        """Run one command, called by its usual name, and return its output.

        Raises:
            ImportFailed: when it fails.

        """
        result = self._exec(self.spelled(argv))
        if result.exit_status:
            raise self._failure(result.exit_status, result.message, " ".join(argv[:5]))
        return result.stdout

    def run_all(self, *groups: Group) -> list[Output]:
        """Run commands, called by their usual names, in as few execs as possible.

        Groups run in parallel. A command that fails does not stop the others.
        """
        return self._run_parts(self._spelled(groups))

    def _spelled(self, groups: Sequence[Group]) -> list[Group]:
        return [[self.spelled(command) for command in group] for group in groups]

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
    def understanding(self) -> Iterator[None]:
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


_USUAL_SOCKET = "/run/containerd/containerd.sock"
_K3S_SOCKET = "/run/k3s/containerd/containerd.sock"
_WITH_REASON = (
    'exec 3>&1; said=$("$@" 2>&1 >&3 3>&-) && exit; status=$?; printf %s "$said"; exit $status'
)
"""Prints the stderr of a program that fails: a batch keeps only stdout."""
_LOOK = f"""
for socket in {_K3S_SOCKET} {_USUAL_SOCKET}; do
    if [ -S $socket ]; then echo socket $socket; fi
done
for name in ctr crictl k3s; do if command -v $name >/dev/null; then echo program $name; fi; done
"""
LOOK = ("sh", "-c", _LOOK)
"""The command that lists the containerd sockets and programs in a container."""


@attrs.frozen
class Containerd:
    """Where containerd is on a node.

    Args:
        programs: the command lines of programs, where they are not just their names.
        config: the command that prints containerd's configuration.
        root: the folder of its content.
        socket: where it listens. crictl connects to it as well, whatever /etc/crictl.yaml names:
            only the CRI of this containerd can report whether it knows this containerd's images.

    """

    programs: Mapping[str, Command] = attrs.field(factory=dict, hash=False)
    config: Command = ("containerd", "config", "dump")
    root: str = "/var/lib/containerd"
    socket: str = _USUAL_SOCKET

    def spelled(self, command: Sequence[str]) -> Command:
        """Return the command line of a command on this node."""
        program, *arguments = command
        words = self.programs.get(program, (program,))
        if program == "crictl":
            endpoint = f"unix://{self.socket}"
            words = ("sh", "-c", _WITH_REASON, program, *words, "-r", endpoint, "-i", endpoint)
        return (*words, *arguments)

    @property
    def start(self) -> Command:
        """The command whose output changes with each start of containerd."""
        return ("stat", "-c", "%i %z", self.socket)

    @property
    def free(self) -> Command:
        """The command that prints the free space of the content's file system."""
        return ("df", "-Pk", self.root)


CONTAINERD = Containerd()
K3S = Containerd(
    programs={"ctr": ("ctr", "--address", _K3S_SOCKET)},
    config=("cat", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
    root="/var/lib/rancher/k3s/agent/containerd",
    socket=_K3S_SOCKET,
)
"""k3s contains containerd and its programs (k3s, pkg/ctr/main.go and pkg/agent/containerd)."""


def parse_look(text: str) -> Containerd:
    """Parse the output of `LOOK`.

    Raises:
        NodeUnusable: when there is no containerd, or no program to control it.

    """
    lines = set(text.splitlines())
    if not lines & {f"socket {_K3S_SOCKET}", f"socket {_USUAL_SOCKET}"}:
        raise NodeUnusable(
            f"containerd does not run there: no {_K3S_SOCKET} and no {_USUAL_SOCKET}",
            hint="name a container that is a node: see imgload clusters",
        )
    runtime = K3S if f"socket {_K3S_SOCKET}" in lines else CONTAINERD
    missing = [name for name in ("ctr", "crictl") if f"program {name}" not in lines]
    if "program k3s" in lines:
        programs = {**runtime.programs, **{name: ("k3s", name) for name in missing}}
        return attrs.evolve(runtime, programs=programs)
    if "ctr" in missing:
        raise NodeUnusable(
            "containerd runs there, but there is no ctr to control it",
            hint="put ctr from containerd's release on the PATH there",
        )
    return runtime
