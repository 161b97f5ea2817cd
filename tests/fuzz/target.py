"""Run an input through all code that reads archives; errors other than imgload's are findings."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from random import Random

import attrs

from imgload.core.errors import ImgloadError
from imgload.oci.archive import Wanted
from imgload.oci.catalogue import scan
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.platform import Platform
from imgload.sources.archive import ArchiveSource
from imgload.sources.base import Image
from imgload.sources.streams import FileChunks
from tests.fuzz.bounds import bounded
from tests.fuzz.members import plain, unpack
from tests.unit.archives import Layout, Repack, split

_NAMES = ("app:v1", "docker.io/library/app:v1", "a" * 64, "a", "sha256:" + "0" * 64)
_NOWHERE = Digest.of(b"nowhere")
_CHECKED = 4 << 20
_LONGEST = 4000
_WORD = re.compile(r"\b[a-z]{2,}\b")
_OF_THE_INPUT = re.compile(
    r"[0-9a-f]{30,}|'.*'|\".*\"|/\S+|\S*[#:]\S+|(digest|is|path): .*", re.DOTALL
)
_WORDS = 9
_FOLDERS = 0.1
_IN_A_FOLDER = 500
_FEW = 1 << 20
_LONG = 200
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@attrs.frozen
class Result:
    """The outcome of an input, with its output if it was repacked and is small enough to check."""

    outcome: str
    output: bytes | None = None
    repack: Repack | None = None


Way = Callable[[], Result]


@attrs.frozen
class Target:
    """Runs inputs; all random choices come from `random`.

    Args:
        folder: folder for files, preferably in memory.
        random: chooses the size of chunks, and the requested images.

    """

    folder: Path
    random: Random

    def __call__(self, data: bytes) -> frozenset[str]:
        """Return the outcomes of an input, as texts that are equal for equal outcomes.

        Raises:
            AssertionError: if the input exceeds a limit, or its output is wrong.
            Exception: any other exception that is not an `ImgloadError`.

        """
        archive = plain(data)
        ways = {
            "scan": self._scanned(archive),
            "repack": self._repacked(archive),
            "file": self._as_file(data),
        }
        outcomes = {f"{name}: {_outcome(way)}" for name, way in ways.items()}
        if self.random.random() < _FOLDERS:
            outcomes.add(f"folder: {self._as_folder(archive)}")
        return frozenset(outcomes)

    def _scanned(self, archive: bytes) -> Way:
        file = io.BytesIO(archive)
        size = self.random.choice((512, 700, 64 << 10))

        def way() -> Result:
            images = scan(FileChunks(file, size)).images
            layers = [len(image.config.diff_ids) for image in images]
            return Result(f"{len(images)} images of {layers[:4]} layers")

        return way

    def _repacked(self, archive: bytes) -> Way:
        chunk = self.random.choice((1 << 20, 1 << 16, 1000, 512)) if len(archive) < _FEW else _FEW
        targets = _digests(archive)
        wanted = Wanted(self.random.choice(targets), ("docker.io/library/app:v1",))
        unneeded = self.random.sample(targets, self.random.choice((0, 0, min(2, len(targets)))))

        def way() -> Result:
            repack = Repack(split(archive, chunk), [wanted], unneeded)
            output = _read(repack)
            outcome = f"{len(repack.sizes)} blobs"
            return Result(outcome, None if unneeded else output, repack)

        return way

    def _as_file(self, data: bytes) -> Way:
        path = self.folder / "archive"
        path.write_bytes(data)
        return self._loaded(path)

    def _as_folder(self, archive: bytes) -> str:
        folder = self.folder / "layout"
        folder.mkdir()
        try:
            for member in unpack(archive)[:_IN_A_FOLDER]:
                link = member.link if member.kind == tarfile.SYMTYPE else ""
                lay(folder, member.path, member.content, link)
            return _outcome(self._loaded(folder))
        finally:
            shutil.rmtree(folder)

    def _loaded(self, path: Path) -> Way:
        platform = self.random.choice((None, None, Platform.of("linux", "arm64")))
        text = self.random.choice((None, None, *_NAMES))

        def way() -> Result:
            with closing(ArchiveSource(str(path))) as source:
                if text is None:
                    images = source.all_images(platform)
                else:
                    images = [one] if (one := source.find(text, platform)) else []
                for image in images:
                    if image.error:
                        _check_error(image.error)
                images = [image for image in images if not image.error]
                if not images:
                    return Result("nothing found")
                with source.save(images) as chunks:
                    wanted = [Wanted(i.target, i.names, i.platform) for i in images]
                    repack = Repack(chunks, wanted)
                    output = _read(repack)
            return Result(f"{len(images)} found, {_shape(images)}", output, repack)

        return way


def _shape(images: list[Image]) -> str:
    for image in images:
        assert re.fullmatch(r"[!-~]{1,200}", str(image.platform)), f"{image.platform!r} is shown"
    return ", ".join(sorted({f"{len(i.names)} names {i.platform}" for i in images}))[:100]


def _outcome(way: Way) -> str:
    try:
        with bounded():
            result = way()
    except ImgloadError as error:
        _check_error(error)
        words = _WORD.findall(_OF_THE_INPUT.sub("", error.message))
        return f"{type(error).__name__}: {' '.join(words[:_WORDS])}"
    if result.output is not None and result.repack is not None:
        _check(result.output, result.repack)
    return result.outcome


def _check_error(error: ImgloadError) -> None:
    """Assert that the texts of an error are short and printable."""
    for text in (error.message, error.hint):
        assert len(text) < _LONGEST, f"a message of {len(text)} characters: {text:.200}"
        assert text.replace("\n", "").isprintable(), f"not printable: {text!r:.300}"
    assert error.exit_status > 1, f"{type(error).__name__} is not an error of a source"


def _read(stream: Iterable[bytes | memoryview]) -> bytes | None:
    """Read a stream to its end; return it if it is small enough to be checked."""
    pieces: list[bytes] = []
    size = 0
    for piece in stream:
        size += len(piece)
        if size <= _CHECKED:
            pieces.append(bytes(piece))
    return b"".join(pieces) if size <= _CHECKED else None


def _check(output: bytes, repack: Repack) -> None:
    """Assert that the output is a complete layout with only the requested images and names."""
    layout = Layout.read(output)
    wanted = {image.config.digest for image in repack.images.values()}
    for name in layout.names:
        manifest = json.loads(layout.manifest(name))
        if "@" in name and "config" not in manifest:
            continue  # the index to which a name with a digest refers
        layers = manifest.get("layers") or []
        for described in (manifest["config"], *layers):
            size = len(layout.blobs[Digest.parse(described["digest"])])
            assert size == described["size"], f"{size} bytes instead of {described['size']}"
        config = ImageConfig.parse(layout.blobs[Digest.parse(manifest["config"]["digest"])])
        assert config.digest in wanted, "an image that was not requested"
        assert len(layers) == len(config.diff_ids), (
            f"{len(layers)} of {len(config.diff_ids)} layers"
        )


def _digests(archive: bytes) -> list[Digest]:
    values = re.findall(rb"[0-9a-f]{64}", archive[: 1 << 20])[:50]
    return [_NOWHERE, *(Digest("sha256", value.decode()) for value in dict.fromkeys(values))]


def lay(folder: Path, path: str, content: bytes, link: str) -> None:
    """Write a member to a folder.

    Links are created but never followed: if the path or one of its parents is a link, nothing is
    written. Otherwise a mutant could write outside the folder.
    """
    target = folder / path
    odd = ".." in target.parts or path.startswith("/") or "\0" in path
    if odd or len(path.encode("utf-8", "surrogatepass")) > _LONG:
        return
    try:
        if any(part.is_symlink() for part in (target, *target.parents)) or target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(link)
        else:
            with os.fdopen(os.open(target, _NEW, 0o600), "wb") as file:
                file.write(content)
    except (OSError, ValueError):
        return
