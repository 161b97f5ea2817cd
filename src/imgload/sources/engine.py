"""Images in an engine's store."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from imgload.core.errors import (
    ArchiveInvalid,
    DigestMismatch,
    EngineFailed,
    ImageIncomplete,
    ImgloadError,
    ManifestMissing,
    NotAnImage,
    PlatformMissing,
)
from imgload.core.parallel import Task
from imgload.engines.base import EngineImage, ImageStore
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig, Manifest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, image_id_prefix, parse_unless_id, pod_name
from imgload.sources.base import Image, Pusher

if TYPE_CHECKING:
    from imgload.engines.base import PushStyle
    from imgload.registry.server import PushSession
    from imgload.registry.sink import PushSink

_MOST_SESSIONS = 16
_MOST_AHEAD = 8
_MOST_SIMILAR = 3


class EngineSource(Pusher):
    """The image store of Docker or Podman."""

    def __init__(self, engine: ImageStore) -> None:
        self.engine = engine
        self.name = engine.name
        self.describe = str(engine.endpoint)
        self.address = engine.endpoint.url
        self.listing = f"{engine.name} images"
        self.local = engine.endpoint.local
        self._reaches_us = False
        self._unidentified: set[tuple[Digest, Platform]] = set()
        self._sizes: dict[Digest, Sequence[int]] = {}
        self._manifests: dict[tuple[Digest, Platform], Manifest] = {}
        self._sessions: dict[Digest, PushSession] = {}
        self._ahead: dict[str, Task[EngineImage | None]] = {}
        self._incomplete: dict[Digest, str] = {}
        """The images of which content is absent, by the engine's ID, with the requested names."""

    def look_ahead(self, texts: Sequence[str]) -> None:
        for text in texts[:_MOST_AHEAD]:
            self._ahead[text] = Task(partial(self.engine.find, text))

    def find(self, text: str, platform: Platform | None) -> Image | None:
        names_for = parse_unless_id(text)
        ahead = self._ahead.pop(text, None)
        image = ahead.result() if ahead else self.engine.find(text)
        if image is None:
            return None
        if names_for and not _has_name(names_for, image):
            names_for = None
        if names_for is None and not _has_id(text, image):
            return None
        if image.incomplete:
            image = self._with_documents(image, image.incomplete, text)
        suited = self._platform(image, platform, text)
        if image.instances:
            instance = self.engine.find(str(image.instances[suited]))
            if instance is None:
                return None
            image = _with_list(instance, image, suited)
            suited = self._platform(image, platform, text)
        if names_for and names_for.digest and image.image_id:
            raise ManifestMissing(
                f"{self.engine.endpoint} cannot give the manifest that {text} demands: it stores"
                " unpacked layers, and a save of them has another digest",
                hint="name it by its tag; or load it from an OCI archive, or from Docker's"
                " containerd image store",
            )
        # a push needs a tag, and removing the tag of an otherwise unnamed image deletes the image
        pushable = image.names or image.target in self._sessions or self.name == "podman"
        manifest = self._manifests.get((image.target, suited))
        result = Image(
            origin=self,
            id=str(image.target),
            names=(names_for.record,) if names_for else _own_names(image),
            target=image.target,
            image_id=manifest.config.digest if manifest else image.image_id,
            platform=suited,
            diff_ids=image.diff_ids,
            size=image.size,
            manifest=manifest,
            manifest_digest=image.manifests.get(suited),
            stored=image.image_id is None,
            is_default_platform=suited == image.default_platform,
            tagged=bool(pushable),
            layers_named=image.image_id is None or self.engine.saves_by_digest,
            pulled=names_for is not None and _is_pulled(names_for, image),
        )
        if result.names:
            return result
        if result.image_id is None:  # not pushed: see `pushable`
            result = identify_by_save(result)
        return attrs.evolve(result, names=(str(result.image_id),))

    def _with_documents(self, image: EngineImage, manifest: Digest, text: str) -> EngineImage:
        """Return an incomplete image with its platform and layers, if the engine pushes these.

        Docker pushes an image without the layers that the registry has. So it can be loaded onto
        nodes that have the layers that Docker lacks (moby #49473).
        """
        from imgload.registry.sink import DocumentSink, ManifestSink  # noqa: PLC0415 - start-up

        if not (self.local and image.names):
            return image
        pushed = _to_push(self, image, manifest)
        manifests = ManifestSink()
        try:
            self.push(pushed, manifests)
            document = Manifest.parse(manifests.taken[manifest])
            configs = DocumentSink(wanted=document.config.digest)
            self.push(pushed, configs)
            config = ImageConfig.parse(configs.document)
        except (EngineFailed, ArchiveInvalid, KeyError):
            return image
        self._manifests[image.target, config.platform] = document
        self._incomplete[image.target] = text
        return attrs.evolve(
            image,
            platform=config.platform,
            diff_ids=config.diff_ids,
            manifests={config.platform: manifest},
            incomplete_platforms=frozenset(),
            has_complete_platform=True,
        )

    def _platform(self, image: EngineImage, platform: Platform | None, text: str) -> Platform:
        """Return the platform to load; raise an error if the image does not have it.

        Docker's containerd image store may have an index, but not every listed image (kind #3795).
        """
        suited = image.match_platform(platform)
        if suited is not None:
            return suited
        available = ", ".join(sorted(map(str, image.platforms)))
        if image.has_complete_platform and not (
            platform and platform.best(image.incomplete_platforms)
        ):
            raise PlatformMissing(
                f"{text} in {self.describe} is for {available}, not {platform}",
                hint=f"build it with --platform {platform}, or choose an available one with"
                " --platform",
            )
        lacking = sorted(map(str, [platform] if platform else image.incomplete_platforms))
        content = f"content of {', '.join(lacking)}" if lacking else "content"
        others = f", {available} is available" if available else ""
        option = f"--platform {platform} " if platform else ""
        other = "; or load an available platform with --platform" if available else ""
        raise ImageIncomplete(
            f"{self.describe} holds {text} only in part: {content} is absent{others}",
            hint=f"{self.name} pull {option}{shlex.quote(text)}, or build it again{other}"
            if available
            else self._replace(text),
        )

    def _replace(self, text: str) -> str:
        """Return how to replace an image of which content is absent; a pull alone has no effect."""
        return (
            f"remove it and its base image, then pull and build them again: {self.name} rmi --force"
            f" {shlex.quote(text)} BASE; or restore the content: {self.name} load"
            " --input FILE"
        )

    def _require_complete(self, images: Sequence[Image]) -> None:
        for text in (self._incomplete.get(image.target) for image in images):
            if text:
                message = f"{self.describe} holds {text} only in part, and the nodes lack the rest"
                raise ImageIncomplete(message, hint=self._replace(text), image=text)

    def similar_names(self, text: str) -> list[str]:
        """Return other tags of the repository, or else names with few different characters."""
        from difflib import get_close_matches  # noqa: PLC0415 - only after a failure

        names: list[str] = []
        with suppress(ImgloadError):
            names = [name for raw in self.engine.names() if (name := pod_name(raw, ["*"]))]
        repository = text.partition("@")[0].rpartition(":")[0] or text
        tags = [name for name in names if name.rpartition(":")[0] in {repository, text}]
        return sorted(tags)[:_MOST_SIMILAR] or get_close_matches(text, names, _MOST_SIMILAR, 0.75)

    def identify(self, image: Image) -> Image:
        """Have the engine push the manifest of an image that it identifies by its manifest.

        It pushes each image once: an engine that hangs costs one timeout.
        """
        key = image.target, image.platform
        if image.manifest is None and (manifest := self._manifests.get(key)):
            return attrs.evolve(image, manifest=manifest, image_id=manifest.config.digest)
        identified = image.manifest is not None or not image.stored
        unable = image.is_cut_off or not (self.local and image.tagged and image.is_default_platform)
        if identified or unable or key in self._unidentified:
            return image
        from imgload.engines.cache import EngineCache  # noqa: PLC0415 - start-up
        from imgload.registry.server import EngineCannotReachUs  # noqa: PLC0415
        from imgload.registry.sink import ManifestSink  # noqa: PLC0415
        from imgload.sources.push import manifest_for  # noqa: PLC0415

        if EngineCache.load().is_unreachable(self.address):
            return attrs.evolve(image, is_cut_off=True)
        sink = ManifestSink()
        self._unidentified.add(key)
        try:
            self.push(image, sink)
        except EngineFailed as error:
            return attrs.evolve(image, is_cut_off=isinstance(error, EngineCannotReachUs))
        pushed = manifest_for(sink.taken, image)
        if pushed is None:
            return attrs.evolve(image, image_id=None)
        self._manifests[key] = pushed
        return attrs.evolve(image, manifest=pushed, image_id=pushed.config.digest)

    def push_style(self, image: Image) -> PushStyle | None:
        if not image.tagged or not self.local:
            return None
        if image.stored:
            return "stored"
        return "compressing" if self.name == "podman" else "remembering"

    def layer_sizes(self, image: Image) -> Sequence[int]:
        if image.manifest:
            return super().layer_sizes(image)
        if image.target not in self._sizes:
            try:
                self._sizes[image.target] = self.engine.layer_sizes(image.target)
            except EngineFailed:  # of Podman, if the history has no dates
                self._sizes[image.target] = ()
        return self._sizes[image.target]

    def push(self, image: Image, sink: PushSink) -> None:
        from imgload.engines.cache import EngineCache  # noqa: PLC0415 - start-up
        from imgload.registry.server import EngineCannotReachUs  # noqa: PLC0415

        try:
            self._session(image).push(sink)
        except EngineCannotReachUs:
            self._reaches_us = False
            EngineCache.load().mark_unreachable(self.address)
            raise
        except EngineFailed:
            self._require_complete([image])
            raise

    def _session(self, image: Image) -> PushSession:
        """Return the push session of an image; close the oldest one if there are too many.

        The cache records from where the engine reaches this process, because a look-up takes time.
        """
        from imgload.engines.cache import EngineCache  # noqa: PLC0415 - start-up
        from imgload.registry.server import EngineCannotReachUs, PushSession  # noqa: PLC0415

        if image.target in self._sessions:
            return self._sessions[image.target]
        if not self.local:
            raise EngineCannotReachUs(
                f"{self.describe} is on another machine, and cannot push to this one"
            )
        if len(self._sessions) >= _MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions))).close()
        network = "" if self._reaches_us else whereabouts(self.address)
        known = self._reaches_us or (
            network != "" and EngineCache.load().reached_from(self.address) == network
        )
        session = PushSession.start(
            partial(self.engine.pushing, image.target),
            refuse_last_manifest=image.stored,
            look_up=None if known else self.engine.look_up,
        )
        self._sessions[image.target] = session
        if not known:
            self._reaches_us = True
            if network:
                EngineCache.load().record_reached(self.address, network)
        return session

    def release(self) -> None:
        with ExitStack() as stack:
            while self._sessions:
                stack.callback(self._sessions.popitem()[1].close)

    @contextmanager
    def save(self, images: Sequence[Image]) -> Iterator[Iterator[bytes]]:
        """Save the images; an unusable archive is the engine's failure, not the user's."""
        self._require_complete(images)
        pins = set().union(*(image.required_digests for image in images))
        whole = bool(pins - {image.manifest_digest for image in images})
        platform = None if whole else images[0].platform
        size = sum(image.size for image in images)
        ids = [image.id for image in images]
        try:
            with self.engine.save(ids, platform, size) as archive:
                yield archive
        except NotAnImage as error:
            names = ", ".join(name for image in images for name in image.names)
            message = f"{self.describe} has no image {names}: {error.message}"
            raise NotAnImage(message, hint=error.hint, content=error.content) from error
        except (ArchiveInvalid, DigestMismatch) as error:
            raise EngineFailed(
                f"{self.engine.endpoint} saved an archive that cannot be used: {error.message}",
                hint=f"list its archive with: {self.name} save {shlex.join(ids)} | tar -tv",
                refused=True,
            ) from error


def _to_push(source: EngineSource, image: EngineImage, manifest: Digest) -> Image:
    """Return an image of which only the digests are known."""
    return Image(
        origin=source,
        id=str(image.target),
        names=image.names,
        target=image.target,
        image_id=None,
        platform=image.platform,
        diff_ids=(),
        size=image.size,
        manifest_digest=manifest,
        stored=True,
        tagged=True,
    )


def _with_list(instance: EngineImage, listing: EngineImage, listed: Platform) -> EngineImage:
    """Return an image of a manifest list with the names and the platform in the list.

    Only the list distinguishes variants. Its architecture may be wrong: Buildah 1.28 lists an image
    from its cache for another architecture.
    """
    own = instance.platform
    alike = (own.os, own.architecture) == (listed.os, listed.architecture)
    return attrs.evolve(instance, names=listing.names, platform=listed if alike else own)


def whereabouts(address: str) -> str:
    """Identify the engine's socket and this process's network namespace, to detect changes.

    Empty for an address that is no socket, because such an address does not identify the engine.
    """
    if not address.startswith("unix://"):
        return ""
    try:
        socket = Path(address.removeprefix("unix://")).stat()
        network = Path("/proc/self/ns/net").readlink() if sys.platform == "linux" else ""
    except OSError:
        return ""
    return f"{socket.st_dev} {socket.st_ino} {socket.st_ctime_ns} {network}"


def _has_id(text: str, image: EngineImage) -> bool:
    digits = image_id_prefix(text)
    ids = (image.target, image.image_id)
    return digits is not None and any(i.hex.startswith(digits) for i in ids if i)


def _has_name(reference: Reference, image: EngineImage) -> bool:
    """Podman also finds an image by the end of its name; Kubernetes does not."""
    accepted = [reference, *([reference.with_localhost()] if reference.is_short else [])]
    return reference.digest is not None or any(name in accepted for name in _references(image))


def _is_pulled(reference: Reference, image: EngineImage) -> bool:
    return reference.untagged in [Reference.parse(name).untagged for name in image.pulled]


def _references(image: EngineImage) -> list[Reference]:
    return [Reference.parse(name) for name in image.names if "<none>" not in name]


def _own_names(image: EngineImage) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.without_localhost().record for name in _references(image)))


def identify_by_save(image: Image) -> Image:
    """Read a whole save to determine the image ID, if there is no cheaper way."""
    from imgload.oci.catalogue import choose, scan  # noqa: PLC0415 - start-up

    with image.origin.save([image]) as archive:
        known = [image.manifest_digest] if image.manifest_digest else []
        manifest = choose(scan(archive), image.target, image.platform, known).manifest
    return attrs.evolve(image, manifest=manifest, image_id=manifest.config.digest)
