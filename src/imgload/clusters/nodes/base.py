"""The interface of a node's container runtime."""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, Literal

import attrs

from imgload.clusters.nodes import causes
from imgload.clusters.nodes.batch import Group, Output, batch_argv, in_parts, parse_batch
from imgload.clusters.nodes.containerd import ContentStore
from imgload.clusters.nodes.files import FileList
from imgload.clusters.nodes.kubelet import used_percent
from imgload.clusters.nodes.proof import Expected
from imgload.clusters.nodes.survey import NamedImage, NodeTraits, Survey, SurveyQuery
from imgload.clusters.nodes.waiting_shell import WaitingShell
from imgload.core import trace
from imgload.core.errors import (
    EngineFailed,
    ImgloadError,
    ImportFailed,
    NodeError,
    NodeFull,
    NodeNotRunning,
    NodeStalled,
    NodeUnusable,
)
from imgload.core.parallel import result_or_error
from imgload.engines.base import Chunk, Container, ContainerHost, ExecResult, OpenInput
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor
from imgload.oci.platform import Platform

_NOT_THE_REASON = re.compile(r"imgload:|Error: \w+ unixpacket ")
"""The shell about a later command that does not exist, and Podman about input that is not read."""
_MIB = 1 << 20
_FOLDERS = "/var/lib"
WITHOUT_FILES = "verify without the files: --verify deep, or imgload verify --deep"
WITHOUT_BLOBS = "verify without files and blobs: --verify cri, or imgload verify"
ArchiveFormat = Literal["oci", "docker"]
UNREACHABLE = 69
"""Exit status of a pull from a node that cannot connect to this process (EX_UNAVAILABLE)."""


@attrs.define(eq=False, repr=False)
class PreviousNames:
    """The state of a node's names right before a change; the change fills it in.

    `records` are the names that existed, with their targets; None if unknown. `marker` is on the
    command line of the change, and on no other; it is empty if none was run. `complete` is whether
    the change got its whole input; before that an import names no image, and ends with its
    connection. `folder` is on the node until the change ends. `since` is when the change began, in
    seconds since 1970.
    """

    records: Mapping[str, Digest] | None = None
    marker: str = ""
    complete: bool = True
    folder: str = ""
    since: float = attrs.field(factory=time.time)


@attrs.frozen(eq=False, repr=False)
class NameChange:
    """A command that changes names on a node.

    Args:
        action: its name, for the error if it fails.
        command: its command line.
        list_names: the command that lists the names; it runs before.
        parse_names: returns the names with their targets from the output of `list_names`.
        stdin: the input of `command`, which needs no end of input.

    """

    action: str
    command: Sequence[str]
    list_names: Sequence[str]
    parse_names: Callable[[Output], Mapping[str, Digest]]
    stdin: Iterable[Chunk] | None = None


@attrs.frozen
class Mismatch:
    """The difference between the platforms of a node and an image.

    `emulated` is whether the node is known to run the image by emulation; `hint` is the fix.
    """

    text: str
    emulated: bool
    hint: str = ""


@attrs.define(eq=False, repr=False)
class NodeRuntime(ABC):
    """A node, and the image operations of its container runtime.

    imgload's own is for containerd; subclass this for another runtime. Every operation may raise
    NodeError.

    Args:
        name: the name of the node's container.
        engine: the engine that runs it.
        container: the container, in its state when it was listed.
        role: its role in the cluster, such as ``control-plane``; may be empty.

    """

    runtime_name: ClassVar[str] = ""
    """The name of its runtime in `detect.RUNTIMES`, and of the module in `tools/inventory` for its
    images; empty without such a module."""
    name: str
    engine: ContainerHost
    container: Container
    role: str = ""
    before: PreviousNames = attrs.field(factory=PreviousNames, init=False)
    """The state of names before the last import."""
    _shell: WaitingShell | None = attrs.field(default=None, init=False)

    @abstractmethod
    def survey(self, question: SurveyQuery) -> Survey:
        """Return the images, layers and names on the node, as far as `question` selects them."""

    def survey_once(self, question: SurveyQuery) -> Survey:
        """Survey the node without looking for other names of the images."""
        return self.survey(question)

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

    @property
    def archive_format(self) -> ArchiveFormat:
        """The part of a layout that `import_layout` reads: its index.json or its manifest.json."""
        return "oci"

    @property
    def keeps_manifests(self) -> bool:
        """Whether an import keeps manifests, so that images can have names with their digests."""
        return True

    @property
    def gateways(self) -> Sequence[str]:
        """IPv4 addresses at which the node may reach this machine; none if it cannot pull."""
        return ()

    @property
    def pulls_discarded_layers(self) -> bool:
        """Whether its pulls request layers that are unpacked, but not in the content store."""
        return False

    def pull(
        self,
        urls: Sequence[str],  # noqa: ARG002 - for subclasses
        names: Sequence[str],
        platform: Platform,  # noqa: ARG002
        question: SurveyQuery,  # noqa: ARG002
    ) -> Survey:
        """Pull images from a registry in this process, and survey the node.

        Args:
            urls: of the registry; the node uses the first that it can connect to.
            names: full names of the images.
            platform: their platform.
            question: as for `import_layout`.

        Raises:
            ImportFailed: with `command_status` UNREACHABLE if the node cannot connect to any.

        """
        raise NodeUnusable(f"{self.name} cannot pull {', '.join(names)}", node=self.name)

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

    def stored_layers(
        self,
        content: ContentStore,  # noqa: ARG002
        diff_ids: Collection[Digest],  # noqa: ARG002
    ) -> Mapping[Digest, Descriptor]:
        """Return blobs of the content store that contain layers, by diff ID, as far as known."""
        return {}

    def list_files(
        self,
        name: str,
        platform: Platform,  # noqa: ARG002
        *,
        hashes: bool = False,  # noqa: ARG002
    ) -> FileList:
        """Return the files of an image as containers get them; with `hashes`, of their content."""
        message = f"{self.name} cannot list the files of {name}: only containerd mounts images"
        raise NodeUnusable(message, hint=WITHOUT_FILES, node=self.name)

    def damaged_blobs(self, name: str) -> list[Digest]:
        """Return the stored blobs of a name's image whose digests, computed again, are wrong."""
        message = f"{self.name} cannot hash {name}"
        raise NodeUnusable(message, hint=WITHOUT_BLOBS, node=self.name)

    def repair_hint(self, name: str, damaged: Sequence[Digest] = ()) -> str:  # noqa: ARG002
        """Return the commands that replace a damaged image, or only its damaged blobs."""
        return f"remove {name} from {self.name}, and load it again"

    def discard_layers(self, names: Sequence[str]) -> None:
        """Remove the layers of images from the content store; their snapshots stay."""
        raise NodeUnusable(f"{self.name} cannot discard layers of {names}", node=self.name)

    @property
    def pins_images(self) -> bool:
        """Whether its CRI reports pinned images, which the kubelet does not remove."""
        return False

    @property
    def pin_requirement(self) -> str:
        """Why it does not pin images, for a note."""
        return "its runtime has no pins"

    def pin(self, names: Sequence[str]) -> None:
        """Pin names that are not pinned, so that the kubelet keeps their images."""
        raise NodeUnusable(f"{self.name} cannot pin {', '.join(names)}", node=self.name)

    def unpin(self, names: Sequence[str]) -> None:
        """Remove the pins that imgload set on names."""
        raise NodeUnusable(
            f"{self.name} has no pins of imgload: {', '.join(names)}", node=self.name
        )

    @abstractmethod
    def images(self) -> Mapping[str, Digest]:
        """Return all names on the node, with the digests of their manifests or indexes."""

    @abstractmethod
    def untag(self, names: Sequence[str]) -> None:
        """Remove names; the runtime deletes content without a name later."""

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Remove names, and wait until content without a name is deleted."""

    def cached_survey(self, question: SurveyQuery) -> Survey | None:  # noqa: ARG002
        """Return an earlier survey that suffices to plan a load, or None."""
        return None

    def forget(self) -> None:  # noqa: B027 - not every runtime keeps facts
        """Drop cached facts about the node."""

    def rollback(  # noqa: B027 - not every runtime leaves names after a failure
        self,
        image: Expected,
        surveyed: Survey,
        written: Digest | None = None,
        before: PreviousNames | None = None,
    ) -> None:
        """Restore a name that a failed import or tag changed, unless the image is complete.

        Args:
            image: the image to load, with the name.
            surveyed: the node's state before the load.
            written: the target that a tag wrote; None for an import.
            before: the state of names before a tag; None for the one before the last import.

        """

    def platform_mismatch(
        self, traits: NodeTraits, name: str, platform: Platform
    ) -> Mismatch | None:
        """Return how the node's platform differs from an image's; None if it runs natively."""
        machine = traits.platform
        if machine.runs(platform):
            return None
        text = f"{name} is a {platform} image, and {self.name} is {machine}"
        emulated = self.emulated_architectures()
        if platform.os == machine.os and emulated and platform.architecture in emulated:
            return Mismatch(f"{text}: it runs with emulation", emulated=True)
        reason = "without an emulator" if emulated is not None else "unless it has an emulator"
        text = f'{text}: {reason}, its containers fail with "exec format error"'
        return Mismatch(text, emulated=False, hint=f"build with: --platform {machine}")

    def emulated_architectures(self) -> frozenset[str] | None:
        """Return the architectures that the node emulates, or None if that is unknown."""
        from imgload.clusters.nodes import emulation  # noqa: PLC0415 - start-up

        is_machine = self.engine.endpoint.kind == "ssh"  # a mount would change the user's machine
        command = emulation.READ_MOUNTED if is_machine else emulation.READ
        outputs = result_or_error(partial(self.run_all, [command]))
        if isinstance(outputs, ImgloadError):
            return None
        return emulation.parse_registry(outputs[0].text)

    def free_bytes(self) -> int | None:
        """Return the free disk space for images, or None if it is unknown."""
        return None

    def require_disk_space(self, surveyed: int | None, needed: int) -> None:
        """Raise NodeFull if `needed` bytes do not fit; `surveyed` is the space at the survey."""
        if surveyed is None or surveyed >= needed:
            return
        free = self.free_bytes()
        if free is not None and free < needed:
            raise NodeFull(
                f"{self.name} has {free / _MIB:.0f} MiB free,"
                f" and at least {needed / _MIB:.0f} MiB are needed",
                hint=self.disk_hint,
                node=self.name,
            )

    def disk_warning(self, traits: NodeTraits) -> tuple[str, str] | None:
        """Return that the kubelet is about to remove images, and the next command, or None."""
        kubelet, total, free = traits.kubelet, traits.total, traits.free
        if not kubelet or total is None or free is None or not kubelet.removes_images(free, total):
            return None
        used = f"the disk of {self.name} is {used_percent(free, total)} % full"
        limit = f"from {kubelet.gc_percent} % on the kubelet removes images that no container uses"
        return f"{used}, and {limit}", f"keep them: imgload load IMAGE --pin; or {self.disk_hint}"

    def refusal_warning(
        self, traits: NodeTraits, name: str, image_id: Digest | None
    ) -> tuple[str, str] | None:
        """Return why the kubelet keeps an image from pods, and the next command, or None."""
        if not traits.kubelet or not image_id:
            return None
        refusal = traits.kubelet.refusal(name, image_id, self.exec_command)
        if refusal is None:
            return None
        why, hint = refusal
        return (
            f"the kubelet on {self.name} keeps {name} from pods without a pull secret: {why}",
            hint,
        )

    def kubelet_notes(self, traits: NodeTraits, name: str, image_id: Digest | None) -> list[str]:
        """Return why the kubelet may remove an image, or keep it from pods, with the commands."""
        warnings = self.disk_warning(traits), self.refusal_warning(traits, name, image_id)
        return [f"{message}; {hint}" for message, hint in filter(None, warnings)]

    @property
    def disk_hint(self) -> str:
        """The commands that help when the disk for images is full."""
        largest = self.exec_command("sh", "-c", "du -xk -d 4 /var | sort -n | tail")
        prune = f"remove old builds: imgload prune --node {self.name}"
        return f"{prune}; or list the largest folders: {largest}"

    def require_cri(self, survey: Survey, *names: str) -> None:
        """Raise NodeUnusable if crictl failed on a name: nothing is known about the image then."""
        for name in names:
            if (answer := survey.cri.get(name)) and answer.failure:
                raise NodeUnusable(
                    f"{self.name}: CRI gives no answer about {name}: {answer.failure}",
                    hint=self.exec_command("crictl", "info"),
                    node=self.name,
                )

    def exec_command(self, *argv: str) -> str:
        """Return the command line that runs a command on the node, for hints."""
        return self.engine.exec_command(self.container.name, *argv)

    @property
    def list_command(self) -> str:
        """The command that lists the runtime's images."""
        return self.exec_command("ctr", "-n", "k8s.io", "images", "ls")

    @property
    def log_command(self) -> str:
        """The command that prints the runtime's log; empty if it is unknown."""
        return ""

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

    def run_change(
        self, change: NameChange, groups: Sequence[Group], before: PreviousNames
    ) -> list[Output]:
        """Run a command that changes names, and others after it, in one exec if they fit.

        Return the outputs of `groups`, which are as for `run_all`; `before` is filled.
        """
        groups = self._resolve_commands(groups)
        fits = len(list(in_parts(groups))) == 1
        batched = groups if fits else []
        first = [self.resolve_command(change.list_names), change.command]
        argv, before.marker = batch_argv(*batched, before=first)
        stdin = change.stdin and OpenInput(_fed(change.stdin, before))
        result = self._exec(argv, stdin)
        count = 2 + sum(map(len, batched))
        outputs = parse_batch(result.stdout, before.marker, count)
        if outputs and outputs[0].exit_status == 0:
            before.records = change.parse_names(outputs[0])
        if len(outputs) < count or outputs[1].exit_status:
            status = outputs[1].exit_status if outputs[1:] else result.exit_status
            raise self._failure(status, attrs.evolve(result, stdout=b"").message, change.action)
        return outputs[2:] if fits else self._run_parts(groups)

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

    @contextmanager
    def temporary_folder(self, *, removes_itself: bool = False) -> Iterator[str]:
        """Yield the path for a folder, and remove it; if that fails, the next run does.

        Files copied to /tmp or /run of a kind node disappear under their tmpfs (moby #22020). A
        folder `removes_itself` if a command that succeeded has removed it.
        """
        from imgload.engines.temporary_tags import note_temporary_name  # noqa: PLC0415 - start-up

        folder = f"{_FOLDERS}/imgload-{secrets.token_hex(8)}"
        noted, succeeded = note_temporary_name(self.container.id, folder), False
        try:
            yield folder
            succeeded = True
        finally:
            try:
                if not (succeeded and removes_itself):
                    self.remove_folder(folder)
            except BaseException:
                if noted:
                    noted.release()
                raise
            if noted:
                noted.remove()

    def remove_folder(self, folder: str) -> None:
        """Remove a temporary folder from the node."""
        self.run(["rm", "-rf", folder])

    @contextmanager
    def waiting_shell(self) -> Iterator[None]:
        """Start a shell now, for the first command that runs within."""
        if self.container.state == "running" and self.engine.streams_exec:
            self._shell = WaitingShell(self.engine, self.container.id)
        try:
            yield
        finally:
            if self._shell:
                self._shell.close()

    def _exec(self, argv: Sequence[str], stdin: Iterable[Chunk] | None = None) -> ExecResult:
        start = time.monotonic()
        try:
            result = self._shell.run(argv, stdin) if self._shell else None
            result = result or self.engine.exec(self.container.id, argv, stdin)
        except (NodeStalled, EngineFailed) as error:
            kind = NodeStalled if isinstance(error, NodeStalled) else NodeUnusable
            message, hint = f"{self.name}: {error.message}", error.hint or self._state
            raise kind(message, hint=hint, node=self.name) from error
        if trace.enabled():
            command = trace.command_text(argv)
            trace.log(f"{self.name}: {command}: exit status {result.exit_status}", start)
        return result

    def require_running(self) -> None:
        """Raise NodeNotRunning when the container is stopped or paused."""
        if (state := self.container.state) != "running":
            raise NodeNotRunning(
                f"{self.name} is {'paused' if state == 'paused' else f'not running ({state})'}",
                hint=self.engine.start_hint(self.container),
                node=self.name,
            )

    @contextmanager
    def naming_node_in_errors(self) -> Iterator[None]:
        """Add the node's name to each NodeUnusable that is raised within."""
        try:
            yield
        except NodeUnusable as error:
            message, hint = f"{self.name}: {error.message}", error.hint or self.log_command
            raise NodeUnusable(message, hint=hint, node=self.name) from error

    def _shell_failed(self, result: ExecResult) -> NodeUnusable:
        reason = result.message or f"exit status {result.exit_status} without output"
        message = f"{self.name}: a shell in it failed: {reason}"
        cause = self._cause(result.message)
        command = self.exec_command("sh", "-c", "echo works")
        return NodeUnusable(message, hint=cause or f"try a shell: {command}", node=self.name)

    def _failure(self, status: int, message: str, action: str) -> NodeError:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        reasons = [line for line in lines if not _NOT_THE_REASON.match(line)] or lines
        reason = reasons[-1] if reasons else "no output"
        if causes.DISK_FULL in message:
            inodes = f"or are its inodes used up: {self.exec_command('df', '-i', '/var')}"
            return NodeFull(
                f"{self.name} ran out of disk space: {reason}",
                hint=f"{self.disk_hint}; {inodes}",
                node=self.name,
            )
        cause = self._cause(message)
        text = f"{action} on {self.name} failed with exit status {status}: {reason}"
        hint = cause or self.log_command
        return ImportFailed(text, command_status=status, hint=hint, node=self.name)

    @property
    def _state(self) -> str:
        return f"check whether it runs: {self.engine.state_command(self.container.name)}"

    def _cause(self, message: str) -> str:
        restart = self.engine.restart_command(self.container.name)
        return causes.hint_for(message, command=self.exec_command(), restart=restart)


def _fed(stdin: Iterable[Chunk], before: PreviousNames) -> Iterator[Chunk]:
    before.complete = False
    yield from stdin
    before.complete = True


def remove_leftovers(nodes: Iterable[NodeRuntime]) -> None:
    """Remove the folders that killed runs left on nodes; if that fails, the next run does."""
    from imgload.engines.temporary_tags import stale_folders  # noqa: PLC0415 - start-up

    by_id = {node.container.id: node for node in nodes}
    for folder in stale_folders(by_id):
        try:
            by_id[folder.engine].remove_folder(folder.name)
        except ImgloadError:
            folder.release()
        else:
            folder.remove()
