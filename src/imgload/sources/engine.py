"""Images in an engine's store."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch, EngineFailed, ManifestMissing
from imgload.engines.base import Engine, EngineImage
from imgload.oci.digest import Digest
from imgload.oci.document import Manifest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, image_id_prefix, name_or_id
from imgload.sources.base import Image, Pusher

if TYPE_CHECKING:
    from imgload.engines.base import PushStyle
    from imgload.registry.push_session import Route
    from imgload.registry.sink import Intake

_MOST_ROUTES = 16


class EngineSource(Pusher):
    """What Docker or Podman holds."""

    def __init__(self, engine: Engine) -> None:
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
        self._routes: dict[Digest, Route] = {}

    def find(self, text: str, platform: Platform | None) -> Image | None:
        names_for = name_or_id(text)
        image = self.engine.find(text)
        if image is None:
            return None
        if names_for and image_id_prefix(text) and not _is_meant(text, names_for, image):
            names_for = None
        if not _is_meant(text, names_for, image):
            return None
        suited = self._suited(image, platform, text)
        if image.instances:
            instance = self.engine.find(str(image.instances[suited]))
            if instance is None:
                return None
            image = _of_list(instance, image, suited)
            suited = self._suited(image, platform, text)
        if names_for and names_for.digest and image.image_id:
            raise ManifestMissing(
                f"{self.engine.endpoint} cannot give the manifest that {text} demands: it keeps"
                " unpacked layers, and what it saves of them has another digest",
                hint="name it by its tag; or load it from an OCI archive, or from Docker's"
                " containerd image store",
            )
        manifest = self._manifests.get((image.target, suited))
        found = Image(
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
            own_platform=suited == image.own_platform,
            tagged=self._is_pushable(image),
            layers_named=image.image_id is None or self.engine.saves_by_digest,
        )
        return found if found.names else self._untagged(found)

    def _suited(self, image: EngineImage, platform: Platform | None, text: str) -> Platform:
        """Return the platform to load; SourceError where the image does not have it."""
        suited = image.suited(platform)
        if suited is None:
            from imgload.sources.refusals import refusal  # noqa: PLC0415 - start-up

            raise refusal(image, platform, text, self.engine)
        return suited

    def _is_pushable(self, image: EngineImage) -> bool:
        """Whether the image has a name, needs none, or has one for a push already."""
        named = bool(image.names) or image.target in self._routes
        return named or self.engine.name == "podman"

    def identify(self, image: Image) -> Image:
        """Have the engine push the manifest, where that is what it knows an image by.

        It is asked once for each image: an engine that hangs costs one timeout.
        """
        key = image.target, image.platform
        if image.manifest is None and (manifest := self._manifests.get(key)):
            return attrs.evolve(image, manifest=manifest, image_id=manifest.config.digest)
        settled = image.manifest is not None or not image.stored or image.cut_off
        unable = not (self.local and image.tagged and image.own_platform)
        if settled or unable or key in self._unidentified:
            return image
        from imgload.engines.cache import Memory  # noqa: PLC0415 - start-up
        from imgload.registry.push_session import CutOff  # noqa: PLC0415
        from imgload.registry.sink import Manifests  # noqa: PLC0415
        from imgload.sources.manifests import manifest_for  # noqa: PLC0415

        if Memory.load().is_cut_off(self.address):
            return attrs.evolve(image, cut_off=True)
        intake = Manifests()
        self._unidentified.add(key)
        try:
            self.push(image, intake)
        except EngineFailed as error:
            return attrs.evolve(image, cut_off=isinstance(error, CutOff))
        pushed = manifest_for(intake.taken, image)
        if pushed is None:
            return attrs.evolve(image, image_id=None)
        self._manifests[key] = manifest = pushed
        return attrs.evolve(image, manifest=manifest, image_id=manifest.config.digest)

    def _untagged(self, image: Image) -> Image:
        """Name an image by its ID, which may take a save to learn.

        It is not pushed: taking our own tag away again would delete it.
        """
        if image.image_id:
            return attrs.evolve(image, names=(str(image.image_id),))
        from imgload.sources.manifests import identify_by_save  # noqa: PLC0415 - start-up

        known = identify_by_save(image)
        return attrs.evolve(known, names=(str(known.image_id),))

    def push_style(self, image: Image) -> PushStyle | None:
        if not image.tagged or not self.local:
            return None  # pushing takes a tag, and taking that away again deletes the image
        if image.stored:
            return "stored"
        return "compressing" if self.engine.name == "podman" else "remembering"

    def layer_sizes(self, image: Image) -> Sequence[int]:
        if image.manifest:
            return super().layer_sizes(image)
        if image.target not in self._sizes:
            self._sizes[image.target] = self.engine.layer_sizes(image.target)
        return self._sizes[image.target]

    def push(self, image: Image, intake: Intake) -> None:
        from imgload.engines.cache import Memory  # noqa: PLC0415 - start-up
        from imgload.registry.push_session import CutOff  # noqa: PLC0415

        try:
            self._route(image).push(intake)
        except CutOff:
            self._reaches_us = False
            Memory.load().cut_off(self.address)
            raise

    def _route(self, image: Image) -> Route:
        """Return the image's way to us; the oldest goes where there are too many."""
        from imgload.registry.push_session import CutOff, Route  # noqa: PLC0415 - start-up

        if image.target in self._routes:
            return self._routes[image.target]
        if not self.local:
            raise CutOff(f"{self.describe} is on another machine, and cannot push to this one")
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.pop(next(iter(self._routes))).close()
        pushing = partial(self.engine.pushing, image.target)
        known = self._is_known_to_reach_us()
        look_up = None if known else self.engine.look_up
        route = Route.start(pushing, unnoted=image.stored, look_up=look_up)
        self._routes[image.target] = route
        if not known:
            self._remember_that_it_reaches_us()
        return route

    def _is_known_to_reach_us(self) -> bool:
        """Whether the engine has asked this process, or one in its network, for something."""
        if self._reaches_us:
            return True
        from imgload.engines.cache import Memory  # noqa: PLC0415 - start-up

        where = whereabouts(self.address)
        return where != "" and Memory.load().reached_from(self.address) == where

    def _remember_that_it_reaches_us(self) -> None:
        from imgload.engines.cache import Memory  # noqa: PLC0415 - start-up

        self._reaches_us = True
        if where := whereabouts(self.address):
            Memory.load().reach(self.address, where)

    def release(self) -> None:
        with ExitStack() as stack:
            while self._routes:
                stack.callback(self._routes.popitem()[1].close)

    @contextmanager
    def save(self, images: Sequence[Image]) -> Iterator[Iterator[bytes]]:
        """Save the images; an archive that cannot be used is the engine's failure, not the user's.

        Raises:
            EngineFailed: when the engine does not save, or saves a damaged or incomplete archive.

        """
        pins = set().union(*(image.required_digests for image in images))
        whole = bool(pins - {image.manifest_digest for image in images})
        platform = None if whole else images[0].platform
        size = sum(image.size for image in images)
        handles = [image.id for image in images]
        try:
            with self.engine.save(handles, platform, size) as archive:
                yield archive
        except (ArchiveInvalid, DigestMismatch) as error:
            raise EngineFailed(
                f"{self.engine.endpoint} saved an archive that cannot be used: {error.message}",
                hint=f"see what it saves with: {self.name} save {shlex.join(handles)} | tar -tv",
                refused=True,
            ) from error


def _of_list(instance: EngineImage, listing: EngineImage, listed: Platform) -> EngineImage:
    """Return an image of a manifest list under the names of the list.

    Only the list may tell variants apart. It may also be wrong about the architecture: Buildah 1.28
    lists an image that it takes out of its cache for another one.
    """
    own = instance.platform
    alike = (own.os, own.architecture) == (listed.os, listed.architecture)
    return attrs.evolve(instance, names=listing.names, platform=listed if alike else own)


def whereabouts(address: str) -> str:
    """Return what changes when the engine behind a socket, or this process's network, does.

    Empty for an address that is no socket: which engine answers there, it does not tell.
    """
    if not address.startswith("unix://"):
        return ""
    try:
        socket = Path(address.removeprefix("unix://")).stat()
        network = Path("/proc/self/ns/net").readlink() if sys.platform == "linux" else ""
    except OSError:
        return ""
    return f"{socket.st_dev} {socket.st_ino} {socket.st_ctime_ns} {network}"


def _is_meant(text: str, reference: Reference | None, image: EngineImage) -> bool:
    """Whether the engine found what the user meant.

    Podman takes a short name for any image whose name ends so. A pod does not.
    """
    if reference is None:
        digits = image_id_prefix(text) or ""
        return any(i.hex.startswith(digits) for i in (image.target, image.image_id) if i)
    accepted = [reference, *([reference.on_localhost()] if reference.short else [])]
    return reference.digest is not None or any(name in accepted for name in _held(image))


def _held(image: EngineImage) -> list[Reference]:
    return [Reference.parse(name) for name in image.names if "<none>" not in name]


def _own_names(image: EngineImage) -> tuple[str, ...]:
    """Return what to call an image that was asked for by ID."""
    return tuple(dict.fromkeys(name.off_localhost().record for name in _held(image)))
