"""Images that are like no other, with one line to change."""

import contextlib
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from imgload.oci.digest import Digest, chain_ids
from tests.lab import CommandError, Engine
from tests.lab.engine import Files

_PIECE = 1 << 24
_SHARES = (400, 190, 2, 2, 2, 2, 2)
_STORE = "data/containerd/daemon/io.containerd.content.v1.content/blobs/sha256"


@attrs.frozen
class Image:
    """A build: its name, its image ID (the config's digest) and its layers, bottom up.

    `file` is the archive to load it from; None for an image of an engine.
    """

    name: str
    image_id: str
    diff_ids: tuple[str, ...]
    file: Path | None = None

    @property
    def source(self) -> str:
        """The argument that selects it in a command."""
        return str(self.file or self.name)

    def warm(self) -> None:
        """Read the archive, so that the page cache has it."""
        if self.file:
            with self.file.open("rb") as file:
                while file.read(_PIECE):
                    pass

    @property
    def chain_ids(self) -> list[str]:
        """The keys of its snapshots on a node (OCI image spec, "Layer ChainID")."""
        return [str(each) for each in chain_ids(tuple(map(Digest.parse, self.diff_ids)))]


@attrs.define
class Builder:
    """Builds of one image on one engine, and others on top of it; `size` in bytes."""

    engine: Engine
    size: int
    name: str = attrs.field(factory=lambda: unique("bench"))
    base: str = attrs.field(factory=lambda: unique("bench-base"))
    built: list[Image] = attrs.field(factory=list)
    others: list[Image] = attrs.field(factory=list)
    _own_ids: list[str] = attrs.field(factory=list)

    def anew(self) -> Image:
        """Build an image of which no layer was there before, and so none that was pushed."""
        self._own_ids.append(self.engine.build(self.base, layers=layer_contents(self.size)))
        return self.rebuild()

    def rebuild(self) -> Image:
        """Build it again with one line changed, in its last layer."""
        line = f"{secrets.token_hex(16)}\n".encode()
        self.built.append(self._build(self.name, [{"app.txt": line}], self.base))
        return self.newest

    @property
    def newest(self) -> Image:
        """The last build."""
        return self.built[-1]

    @property
    def images(self) -> list[Image]:
        """All that was built."""
        return [*self.built, *self.others]

    def family(self, count: int) -> list[Image]:
        """Build images that share all but one layer, of a hundredth of the size."""
        contents = [secrets.token_bytes(self.size // 100) for _ in range(count)]
        made = [self._build(unique("bench"), [{"own": own}], self.base) for own in contents]
        self.others += made
        return made

    def deep(self, counts: Sequence[int]) -> list[Image]:
        """Build images of the same size with so many layers, each on top of the one before."""
        images = [self.newest]
        for count in counts:
            new = range(len(images[-1].diff_ids), count)
            lines = [{f"line{n}": secrets.token_hex(16).encode()} for n in new]
            images.append(self._build(unique("bench"), lines, images[-1].name))
        self.others += images[1:]
        return images[1:]

    def add(self, archive: Image) -> Image:
        """Load an archive into the engine."""
        assert archive.file
        self.engine.cli("load", "-i", archive.file)
        image = attrs.evolve(archive, file=None)
        self.others.append(image)
        return image

    @contextlib.contextmanager
    def renamed(self) -> Iterator[Image]:
        """Give the newest build one more name."""
        image = attrs.evolve(self.newest, name=unique("bench-renamed"))
        self.engine.cli("tag", self.newest.name, image.name)
        try:
            yield image
        finally:
            self.engine.cli("rmi", image.name)

    def _build(self, name: str, layers: Sequence[Files], base: str) -> Image:
        own_id = self.engine.build(name, base=base, layers=layers)
        self._own_ids.append(own_id)
        template = "{{json .RootFS.Layers}}"
        shown = self.engine.cli("image", "inspect", "--format", template, name)
        return Image(name, config_digest(self.engine, own_id), tuple(json.loads(shown)))

    def clear(self) -> None:
        """Remove all builds from the engine."""
        names = {image.name for image in self.images}
        for target in (*names, *reversed(self._own_ids), self.base):
            with contextlib.suppress(CommandError):
                self.engine.cli("rmi", "--force", target)


def layer_contents(size: int) -> list[dict[str, Iterator[bytes]]]:
    """Return the files of each layer of an image of `size` bytes, with random content."""
    parts = [size * share // sum(_SHARES) for share in _SHARES]
    return [{f"part{n}": _random(part)} for n, part in enumerate(parts)]


def _random(size: int) -> Iterator[bytes]:
    """Yield random content in pieces, for an image may be larger than the memory."""
    for start in range(0, size, _PIECE):
        yield secrets.token_bytes(min(_PIECE, size - start))


def config_digest(engine: Engine, own_id: str) -> str:
    """Return the image ID, which Docker's containerd store does not tell.

    There it is read from the daemon's files, so that neither kind nor imgload is asked.
    """
    path = engine.paths.root / engine.name / _STORE / own_id.removeprefix("sha256:")
    return _config_of(path) if path.exists() else own_id


def _config_of(path: Path) -> str:
    document: dict[str, Any] = json.loads(path.read_bytes())
    if "manifests" in document:
        digest = str(document["manifests"][0]["digest"])
        return _config_of(path.with_name(digest.removeprefix("sha256:")))
    return str(document["config"]["digest"])


def unique(repository: str) -> str:
    """Return a name that no other image has."""
    return f"docker.io/library/{repository}-{secrets.token_hex(4)}:dev"
