"""The interface of a container engine, as imgload needs it."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import attrs

from imgload.core.errors import EngineFailed, reason
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

Chunk = bytes | memoryview
NOT_CONNECTED = "dial tcp"
"""Part of a failed connection's error in both engines, which are written in Go."""
CHUNK = 1 << 20
"""Bytes of one chunk of a stream."""
PushStyle = Literal["stored", "compressing", "remembering"]
"""How an engine pushes: stored blobs; compressed layers, querying by diff ID; or compressed layers,
querying only by the digests of earlier pushes."""


@attrs.frozen
class EngineImage:
    """An image in an engine, with the platform of its config and its layers, bottom up."""

    target: Digest
    """The engine's own ID: on Docker's containerd image store the digest of a manifest or index,
    elsewhere the image ID."""
    image_id: Digest | None
    """The digest of the config; Docker's containerd image store does not report it."""
    names: tuple[str, ...]
    platform: Platform
    diff_ids: tuple[Digest, ...]
    size: int
    """Bytes of the unpacked layers, or on Docker's containerd image store of the stored blobs."""
    manifests: Mapping[Platform, Digest] = attrs.field(factory=dict, hash=False)
    """The complete manifests; Docker's containerd image store from 28.0 on."""
    incomplete_platforms: frozenset[Platform] = frozenset()
    """The platforms that are listed but lack content."""
    has_complete_platform: bool = True
    incomplete: Digest | None = None
    """The only manifest, if content of it is absent; platform and layers are unknown then."""
    lacks_own_platform: bool = False
    """Whether the engine, which prefers its own platform, reports another one."""
    instances: Mapping[Platform, Digest] = attrs.field(factory=dict, hash=False)
    """The image IDs in a manifest list of Podman's, which has no ID, layers or size of its own."""
    pulled: tuple[str, ...] = ()
    """The repositories that the engine pulled it from, or pushed it to, as far as it shows that."""

    @property
    def default_platform(self) -> Platform:
        """The engine's own choice, as the index lists it: a config may lack the variant."""
        own = (self.platform.os, self.platform.architecture)
        matches = [p for p in self.manifests if (p.os, p.architecture) == own]
        return matches[0] if len(matches) == 1 else self.platform

    @property
    def platforms(self) -> frozenset[Platform]:
        """The available platforms; empty if only a save can tell, as on Docker before 28."""
        alone = self.image_id or self.lacks_own_platform
        return frozenset(self.manifests or self.instances or ({self.platform} if alone else ()))

    def match_platform(self, wanted: Platform | None) -> Platform | None:
        """Return the platform to load, or None if the image lacks it; `wanted` may be None."""
        if not self.has_complete_platform:
            return None
        if wanted is None:
            return self.default_platform
        return wanted.best(self.platforms) if self.platforms else wanted


@attrs.frozen
class Container:
    id: str
    name: str
    state: str
    labels: Mapping[str, str] = attrs.field(hash=False)
    gateways: tuple[str, ...] = ()
    """IPv4 addresses of its networks' gateways, at which it may reach the engine's machine."""


@attrs.frozen
class ImageEvent:
    """An image was tagged, built, pulled or imported; unknown fields are empty or None."""

    name: str = ""
    target: Digest | None = None
    at: int | None = None
    """Nanoseconds since 1970 by the engine's clock."""


@attrs.frozen
class EventsOpened:
    """The engine now reports events; `at` is its time in ns, rounded down to a second, or None."""

    at: int | None = None


@attrs.define
class OpenInput:
    """Standard input of a command that needs no end of input, such as a tar with its marker."""

    chunks: Iterable[Chunk]
    is_tar: bool = True
    """Whether the command unpacks it, which takes long on a slow disk."""

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)


@attrs.frozen
class ExecResult:
    """The result of a command in a container; `complete` if it received all of its input."""

    exit_status: int
    stdout: bytes
    stderr: bytes
    """The last 64 KiB."""
    complete: bool = True

    @property
    def message(self) -> str:
        """The command's own error message, without warnings."""
        text = reason(self.stderr.decode(errors="replace"))
        text = text or reason(self.stdout[-2000:].decode(errors="replace"))
        return text or ("" if self.complete else "its connection broke before all was sent")


@attrs.frozen
class EngineDescription:
    """An engine's own description; fields that it does not report are empty."""

    version: str = ""
    store: str = ""
    """The kind of image store, such as ``overlay2`` or ``containerd``."""
    rootless: bool = False
    platform: Platform | None = None


class Backend(ABC):
    """A connection to a container engine, until it is closed.

    Every method raises EngineError (unreachable, not permitted, failed), and no error of an SDK.
    """

    endpoint: Endpoint

    @property
    def name(self) -> str:
        """The engine's kind, for messages and reports."""
        return self.endpoint.kind

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""


class ImageStore(Backend):
    """The images of a container engine: finds, saves and pushes them, and reports new ones.

    An image is named by a name or image ID, or by the engine's own ID (`EngineImage.target`).
    """

    @abstractmethod
    def find(self, name: str) -> EngineImage | None:
        """Return the image with a name or image ID, or None."""

    @abstractmethod
    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        """Return the names of images, as the engine writes them, with the engine's own IDs.

        `references` may limit them: repositories in short form, with ``:`` and a glob of tags.
        """

    @abstractmethod
    def image_events(self, since: int | None) -> Iterator[EventsOpened | ImageEvent]:
        """Yield EventsOpened, then image events until none occurs for a while.

        The first are those of the time `since` (nanoseconds by the engine's clock), as far as the
        engine still has them; None yields only new events.
        """

    @property
    def reports_every_build(self) -> bool:
        """Whether the events include each build of a tagged image."""
        return True

    @abstractmethod
    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Stream one archive of several images, by name or ID, with shared layers.

        The engine chooses a platform if it can. It may spool the archive to its disk first, and
        be silent for as long as `size`, the bytes of the images, takes.
        """

    def load(self, archive: Iterable[Chunk]) -> None:
        """Store the images of an archive, which may omit layers that the engine has."""
        del archive
        raise EngineFailed(f"{self.endpoint} cannot load an archive")

    @property
    def saves_by_digest(self) -> bool:
        """Whether the paths in a saved archive identify the layers."""
        return True

    @abstractmethod
    def pushing(self, image: Digest, repository: str) -> AbstractContextManager[Callable[[], None]]:
        """Yield a function that pushes an image, and remove the push's temporary names at the end.

        `image` is the engine's own ID, and on Docker the image must have a name; `repository` is
        ``host:port/path``, on plain HTTP on this machine.
        """

    def tidy(self) -> None:
        """Remove the temporary names that killed runs left behind."""

    @abstractmethod
    def layer_sizes(self, image: Digest) -> list[int]:
        """Return the bytes of each layer, bottom up; empty if the engine does not report them."""

    def look_up(self, repository: str) -> None:
        """Have the engine query a registry for an image; the engine stores nothing.

        `repository` is ``host:port/path``, on plain HTTP on this machine. An answer other than
        "exists" is an EngineError.
        """
        raise EngineFailed(f"{self.endpoint} cannot query the registry for {repository}")

    def identity(self) -> str:
        """Return a text that is the same for every address of this engine, and for no other."""
        return self.endpoint.url

    def description(self) -> EngineDescription:
        """Return the engine's own description."""
        return EngineDescription()


class ContainerHost(Backend):
    """The containers of a container engine, among them the nodes of clusters."""

    @abstractmethod
    def containers(self, label: str) -> list[Container]:
        """Return all containers with a label (``key`` or ``key=value``), stopped ones included.

        An empty label selects every container.
        """

    @abstractmethod
    def container(self, name: str) -> Container | None:
        """Return the container with a name or ID, or None."""

    @abstractmethod
    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        """Run a command in a container as root, and stream `stdin` to it until it ends.

        After an `OpenInput`, the connection should stay open in both directions.
        """

    @abstractmethod
    def put_archive(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        """Unpack a tar stream into a folder of a container, which must not be on a tmpfs."""

    @property
    def streams_exec(self) -> bool:
        """Whether a command can get input: over a socket or ssh, not over TLS."""
        return self.endpoint.tls is None

    def exec_command(self, container: str, *argv: str) -> str:
        """Return the command line that runs a command in a container, for hints."""
        return f"{self.name} exec {container} {shlex.join(argv)}".rstrip()

    def state_command(self, container: str) -> str:
        """Return the command line that shows whether a container runs, for hints."""
        return f"{self.name} ps --all --filter name={container}"

    def logs_command(self, container: str) -> str:
        """Return the command line that prints a container's log, for hints; may be empty."""
        return f"{self.name} logs --tail 50 {container}"

    def start_hint(self, container: Container) -> str:
        """Return how to start a container that is stopped or paused."""
        verb = "unpause" if container.state == "paused" else "start"
        return f"{self.name} {verb} {container.name}"

    def restart_command(self, container: str) -> str:
        """Return the command line that restarts a container, for hints."""
        return f"{self.name} restart {container}"


class Engine(ImageStore, ContainerHost):
    """A container engine: its images and its containers."""
