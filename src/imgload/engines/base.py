"""What imgload needs of a container engine, whichever it is."""

from __future__ import annotations

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
"""What both engines, written in Go, say of a connection that did not come about."""
CHUNK = 1 << 20
"""Bytes of one piece of a stream."""


@attrs.frozen
class EngineImage:
    """An image as an engine holds it.

    Args:
        target: what the engine calls its ID. On Docker's containerd image store that is the
            digest of a manifest or index, elsewhere it is the image ID.
        image_id: digest of the config; None where the engine does not tell it, which is so on
            Docker's containerd image store.
        names: the names it has in the engine, as the engine writes them.
        platform: what it runs on.
        diff_ids: its layers, bottom up.
        size: bytes, as the engine counts them: unpacked layers, or on Docker's containerd
            image store the stored blobs.
        manifests: on Docker's containerd image store from 28.0 on, the manifests that are there
            with all their content, by platform.
        absent: the platforms that are listed beside those, and lack content.
        whole: whether there is any platform of which nothing is lacking.
        instances: the image IDs behind one of Podman's manifest lists, by platform. Such a list
            has no image ID, layers or size of its own.

    """

    target: Digest
    image_id: Digest | None
    names: tuple[str, ...]
    platform: Platform
    diff_ids: tuple[Digest, ...]
    size: int
    manifests: Mapping[Platform, Digest] = attrs.field(factory=dict, hash=False)
    absent: frozenset[Platform] = frozenset()
    whole: bool = True
    instances: Mapping[Platform, Digest] = attrs.field(factory=dict, hash=False)

    @property
    def own_platform(self) -> Platform:
        """The engine's own choice as its index lists it: a config may lack the variant."""
        own = (self.platform.os, self.platform.architecture)
        alike = [p for p in self.manifests if (p.os, p.architecture) == own]
        return alike[0] if len(alike) == 1 else self.platform

    @property
    def platforms(self) -> frozenset[Platform]:
        """Those that it has; none where only a save can tell, as on Docker before 28."""
        several = self.manifests or self.instances
        return frozenset(several or ({self.platform} if self.image_id else ()))

    def suited(self, wanted: Platform | None) -> Platform | None:
        """Return the platform to load, None for the engine's own; None where it is not there."""
        if not self.whole:
            return None
        if wanted is None:
            return self.own_platform
        return wanted.best(self.platforms) if self.platforms else wanted


@attrs.frozen
class Container:
    """A container that an engine runs, or has stopped (`state` other than ``running``)."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str] = attrs.field(hash=False)


@attrs.frozen
class ImageEvent:
    """An image got a name, was built or came in; what the engine does not tell is empty or None.

    Args:
        name: the name it got.
        target: what the engine calls its ID.
        at: when, in nanoseconds since 1970 by the engine's own clock.

    """

    name: str = ""
    target: Digest | None = None
    at: int | None = None


@attrs.frozen
class EventsOpened:
    """The engine reports its events from now on.

    Args:
        at: the engine's own time in nanoseconds, rounded down to a second; None if unknown.

    """

    at: int | None = None


@attrs.frozen
class ExecResult:
    """How a command in a container ended.

    Args:
        exit_status: its own.
        stdout: all of it.
        stderr: its last 64 KiB.
        complete: whether it was sent all of its input; it may have ended, or been cut off, before.

    """

    exit_status: int
    stdout: bytes
    stderr: bytes
    complete: bool = True

    @property
    def message(self) -> str:
        """What the command said about its failure, without its warnings, as one text."""
        text = reason(self.stderr.decode(errors="replace"))
        text = text or reason(self.stdout[-2000:].decode(errors="replace"))
        return text or ("" if self.complete else "its connection broke before all was sent")


@attrs.frozen
class About:
    """What an engine says of itself; empty where it does not.

    Args:
        version: of the engine.
        store: where its images are, in its own words, as ``overlay2`` or ``containerd``.
        rootless: whether it runs without root's rights.
        platform: of the machine that it runs on.

    """

    version: str = ""
    store: str = ""
    rootless: bool = False
    platform: Platform | None = None


class Engine(ABC):
    """A container engine; owns its connections until closed.

    Every method raises EngineError (unreachable, not permitted, failed) and nothing of the SDKs.
    """

    endpoint: Endpoint

    @abstractmethod
    def find(self, name: str) -> EngineImage | None:
        """Return the image that the engine knows by a name or image ID, or None."""

    @abstractmethod
    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        """Return the names of all images, as the engine writes them, with what they lead to.

        Args:
            references: only these: repositories as people write them, with ``:`` and a glob
                of tags.

        """

    @abstractmethod
    def image_events(self, since: int | None) -> Iterator[EventsOpened | ImageEvent]:
        """Yield EventsOpened, and then image events as they happen, until none comes for a while.

        Args:
            since: begin with the events from this time on, in nanoseconds by the engine's clock,
                as far as the engine still has them; None for new events only.

        """

    @property
    def tells_every_build(self) -> bool:
        """Whether each build of a tagged image is among the events."""
        return True

    @abstractmethod
    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Stream one archive of several images, layers shared, in chunks.

        Args:
            images: names or IDs as the engine knows them.
            platform: which platform of a multi-platform image, where the engine can choose.
            size: bytes of the images, where they are known: an engine that writes all of the
                archive to its disk first may be silent for as long as that takes.

        """

    @property
    def saves_by_digest(self) -> bool:
        """Whether the paths in a saved archive say which layer is which."""
        return True

    @abstractmethod
    def pushing(self, image: Digest, repository: str) -> AbstractContextManager[Callable[[], None]]:
        """Prepare pushes of an image to ``host:port/path``, on plain HTTP on this machine.

        What it yields pushes, as often as it is called. No name is left behind in the engine.

        Args:
            image: what the engine calls its ID; on Docker, of an image that has a name.
            repository: where to.

        """

    def tidy(self) -> None:  # noqa: B027 - not every engine needs a name for a push
        """Take away the names that killed runs left behind."""

    @abstractmethod
    def layer_sizes(self, image: Digest) -> list[int]:
        """Return the bytes of each layer, bottom up; empty where the engine cannot tell."""

    @abstractmethod
    def containers(self, label: str) -> list[Container]:
        """Return all containers, stopped ones too, with a label (``key`` or ``key=value``)."""

    @abstractmethod
    def container(self, name: str) -> Container | None:
        """Return one container by name or ID, or None."""

    @abstractmethod
    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        """Run a command in a container as root, feeding it `stdin` as it comes.

        When the command ends before it has read everything, the rest is not sent.
        """

    @abstractmethod
    def put(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        """Unpack a tar stream into a folder of a container, on disk, not on a tmpfs."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @property
    def streams_exec(self) -> bool:
        """Whether a command's input can be closed alone: over a socket or ssh, and not over TLS."""
        return self.endpoint.tls is None

    def identity(self) -> str:
        """Return what tells this engine from every other, by whichever way it is reached."""
        return self.endpoint.url

    def about(self) -> About:
        """Return what the engine says of itself."""
        return About()

    def look_up(self, repository: str) -> None:
        """Have the engine ask a registry, on plain HTTP on this machine, for an image.

        It stores nothing, whatever it is answered.

        Args:
            repository: ``host:port/path``.

        Raises:
            EngineError: when the registry does not have it, or does not answer.

        """
        raise EngineFailed(f"{self.endpoint} cannot look anything up in {repository}")

    @property
    def name(self) -> str:
        """The engine's kind, for messages and reports."""
        return self.endpoint.kind


PushStyle = Literal["stored", "compressing", "remembering"]
"""How an engine pushes: blobs as stored; compressed, asking by diff ID; compressed, asking by the
digests of earlier pushes only."""
