"""The image of a builder outside the engine, as an OCI layout folder without known layers.

BuildKit writes a layout folder through its client's connection, and skips each blob that the folder
has (containerd, plugins/content/local/writer.go). An empty file in the place of a known layer thus
omits it: a build transfers only new layers, with every driver of buildx, and without a connection
from the builder to this machine. ``--load`` transfers the whole image each time (buildx #107).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs

from imgload.core.errors import EngineFailed
from imgload.core.state import TemporaryFolder, spool_folder
from imgload.engines.base import Engine
from imgload.engines.cache import EngineCache
from imgload.oci.digest import Digest
from imgload.sources.archive import ArchiveSource
from imgload.sources.base import Image
from imgload.sources.folder import ImageFolder
from imgload.tools.skaffold.request import Request

_SMALL_BYTES = 1 << 20
"""A smaller layer is not omitted: an engine stores a layer again if one below it has changed."""


@attrs.define(eq=False, repr=False)
class BuildFolder:
    """A temporary folder for the output of a build."""

    path: Path
    _omitted: list[Path] = attrs.field(factory=list)

    @classmethod
    @contextmanager
    def make(cls) -> Iterator[BuildFolder]:
        """Make the folder, and remove it at the end."""
        folder = TemporaryFolder.make(spool_folder())
        try:
            yield cls(folder.path)
        finally:
            folder.remove()

    @property
    def output(self) -> str:
        """The value of ``docker build --output``, which is a line of CSV."""
        path = str(self.path).replace('"', '""')
        return f'type=oci,tar=false,"dest={path}"'

    def omit(self, layers: Collection[Digest]) -> None:
        """Have the next build leave out these layers."""
        blobs = self.path / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        for layer in layers:
            self._omitted.append(blobs / layer.hex)
            self._omitted[-1].touch()

    def image(self, name: str) -> Image:
        """Return the built image, and make the folder loadable by engines, under a name.

        Docker's graphdriver store and Podman need the ``manifest.json`` of a docker-archive.
        """
        while self._omitted:
            self._omitted.pop().unlink(missing_ok=True)
        listing = self.path / "manifest.json"
        listing.unlink(missing_ok=True)
        image = self.source.all_images(None)[0]
        config, *layers = (f"blobs/sha256/{d.hex}" for d in (image.target, *image.blobs))
        entry = {"Config": config, "RepoTags": [name], "Layers": layers}
        listing.write_text(json.dumps([entry]))
        return image

    @property
    def source(self) -> ArchiveSource:
        return ArchiveSource(str(self.path))

    def archive(self) -> Iterator[bytes]:
        """Yield the folder as a tar."""
        with closing(ImageFolder(self.path)) as folder:
            yield from folder


@attrs.frozen
class EngineBuilds:
    """The builds of one repository by a builder outside the engine that stores them."""

    engine: Engine
    builder: str
    request: Request
    _cache: EngineCache = attrs.field(factory=EngineCache.load)

    @property
    def _repository(self) -> str:
        reference = self.request.reference
        return f"{self.builder} {reference.registry}/{reference.repository}"

    def known_layers(self) -> list[Digest]:
        """Return the large layers of the last build that the engine still has."""
        earlier = self._cache.last_build(self.engine.endpoint.url, self._repository)
        stored = self.engine.find(str(earlier)) if earlier else None
        diff_ids = stored.diff_ids if stored else ()
        layers = self._cache.layers(self.builder).items()
        return [d for d, (diff_id, n) in layers if n >= _SMALL_BYTES and diff_id in diff_ids]

    def store(self, folder: BuildFolder, image: Image) -> Digest | None:
        """Load a built image into the engine; return the engine's ID, or None if it lacks layers.

        Docker's containerd image store accepts an archive that lacks layers without an error.
        """
        try:
            self.engine.load(folder.archive())
        except EngineFailed:
            if image.absent_layers:
                return None
            raise
        stored = self.engine.find(self.request.image)
        ids = {image.image_id, image.manifest.digest if image.manifest else None}
        if stored is None or stored.target not in ids or stored.diff_ids != image.diff_ids:
            return None
        return stored.target if stored.has_complete_platform else None

    def record(self, image: Image, target: Digest) -> None:
        """Cache the layers, for the next build."""
        layers = image.manifest.layers if image.manifest else ()
        pairs = zip(layers, image.diff_ids, strict=False)
        self._cache.record_layers(self.builder, {x.digest: (d, x.size) for x, d in pairs})
        self._cache.record_build(self.engine.endpoint.url, self._repository, target)
