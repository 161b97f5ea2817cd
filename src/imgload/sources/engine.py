"""Images in an engine's store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from imgload.engines.base import Engine, EngineImage
from imgload.errors import EngineFailed, PlatformMissing
from imgload.oci.archive import choose
from imgload.oci.digest import Digest
from imgload.oci.document import Index, Manifest, parse_json
from imgload.oci.platform import Platform
from imgload.oci.scan import scan
from imgload.reference import Reference, image_id_prefix, is_full_image_id
from imgload.sources.base import Found, Pusher
from imgload.transports.choose import PushStyle


class EngineSource(Pusher):
    """What Docker or Podman holds."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.name
        self.describe = str(engine.endpoint)
        self.address = engine.endpoint.url
        self.listing = f"{engine.name} images"
        self._sizes: dict[Digest, Sequence[int]] = {}

    def find(self, text: str, platform: Platform | None) -> Found | None:
        names_for = _reference(text)
        image = self.engine.find(text)
        if image is None:
            return None
        if names_for and image_id_prefix(text) and not _is_meant(text, names_for, image):
            names_for = None
        if not _is_meant(text, names_for, image):
            return None
        if platform and image.image_id and image.platform != platform:
            raise PlatformMissing(
                f"{text} in {self.engine.endpoint} is for {image.platform}, not {platform}",
                hint=f"build it with --platform {platform}, or leave --platform out",
            )
        other = platform is not None and platform != image.platform
        manifest = None if image.image_id or other else self._manifest(image)
        image_id = manifest.config.digest if manifest else image.image_id
        return Found(
            handle=str(image.target),
            names=(names_for.record,) if names_for else _own_names(image, image_id),
            target=image.target,
            image_id=image_id,
            platform=platform or image.platform,
            diff_ids=image.diff_ids,
            size=image.size,
            manifest=manifest,
            tagged=bool(image.names) or self.engine.name == "podman",
        )

    def _manifest(self, image: EngineImage) -> Manifest | None:
        """Learn the manifest where the engine does not tell the image ID; None where it cannot be.

        An untagged image is not pushed, since taking our own tag away again would delete it;
        its manifest is read from a save.
        """
        if not image.names:
            with self.engine.save([str(image.target)], image.platform) as archive:
                return choose(scan(archive), image.target, image.platform).manifest
        from imgload.transports.receiver import Manifests, receiving  # noqa: PLC0415 - start-up

        intake = Manifests()
        with receiving(intake) as repository:
            try:
                self.engine.push(image.target, repository)
            except EngineFailed:
                return None
        return _manifest_for(intake.taken, image)

    def push_style(self, image: Found) -> PushStyle | None:
        if not image.tagged:
            return None  # pushing takes a tag, and taking that away again deletes the image
        if image.manifest is not None:
            return "stored"
        return "compressing" if self.engine.name == "podman" else "remembering"

    def layer_sizes(self, image: Found) -> Sequence[int]:
        if image.target not in self._sizes:
            sizes = super().layer_sizes(image) or self.engine.layer_sizes(image.target)
            self._sizes[image.target] = sizes
        return self._sizes[image.target]

    def push(self, image: Found, repository: str) -> None:
        self.engine.push(image.target, repository)

    def save(self, images: Sequence[Found]) -> AbstractContextManager[Iterator[bytes]]:
        return self.engine.save([image.handle for image in images], images[0].platform)


def _reference(text: str) -> Reference | None:
    """Return the name that the text is, or None when it can only be an image ID."""
    return None if is_full_image_id(text) else Reference.parse(text)


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


def _own_names(image: EngineImage, image_id: Digest | None) -> tuple[str, ...]:
    """Return what to call an image that was asked for by ID; CRI knows it by its ID, too."""
    names = tuple(dict.fromkeys(_pod_name(name) for name in _held(image)))
    return names or (str(image_id or image.target),)


def _pod_name(held: Reference) -> str:
    """Return a name without the ``localhost/`` that Podman put before it."""
    if held.registry != "localhost":
        return held.record
    return Reference.parse(held.record.removeprefix("localhost/")).record


def _manifest_for(pushed: Mapping[Digest, bytes], image: EngineImage) -> Manifest | None:
    """Return the one manifest among those pushed that is the image."""
    fitting = [m for m in _manifests_for(pushed, image) if len(m.layers) == len(image.diff_ids)]
    return fitting[0] if len(fitting) == 1 else None


def _manifests_for(pushed: Mapping[Digest, bytes], image: EngineImage) -> Iterator[Manifest]:
    for digest, raw in pushed.items():
        document = parse_json(raw, "a manifest")
        if "config" in document and _is_for(digest, pushed, image):
            yield Manifest.parse(raw)


def _is_for(digest: Digest, pushed: Mapping[Digest, bytes], image: EngineImage) -> bool:
    """Whether a manifest is listed for the image's platform, or by nothing at all."""
    indexes = [Index.parse(r) for r in pushed.values() if "manifests" in parse_json(r, "an index")]
    listed = [entry for index in indexes for entry in index.manifests if entry.digest == digest]
    return all(e.platform in {None, image.platform} and not e.is_attestation for e in listed)
