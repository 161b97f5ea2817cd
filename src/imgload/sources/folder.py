"""The images of a folder, as the members of an archive."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from imgload.core.errors import ArchiveInvalid
from imgload.core.files import read_at
from imgload.oci.digest import Digest
from imgload.oci.document import (
    INDEX,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    Index,
    dig,
    load_json,
    text_at,
)
from imgload.oci.tar import END, MAX_MEMBERS, Member, header, inside, padding

_MOST_OPEN = 128
"""Files that stay open."""
_READ = os.O_RDONLY | os.O_NONBLOCK
_DOCUMENTS = ("oci-layout", "index.json", "manifest.json", "repositories")
Entry = tuple[Member, Iterable[memoryview]]
_HINT = "load an archive: docker save app:dev | imgload load --from -"


class ImageFolder:
    """The documents and blobs of a folder, also as one tar; only referenced files are read.

    It is an OCI layout (image-layout.md; BuildKit before 0.12 omits ``oci-layout``), an unpacked
    docker-archive, or a folder of skopeo's ``dir:`` or Podman's ``docker-dir``, which is presented
    as an OCI layout. Its files stay open until `close`, up to a limit.

    Args:
        folder: the path.
        follow_links: whether symbolic links may lead out of the folder.

    """

    def __init__(self, folder: Path, *, follow_links: bool = False) -> None:
        self._folder = folder
        self._follow_links = follow_links
        self._open: list[IO[bytes]] = []

    def close(self) -> None:
        for file in self._open:
            file.close()

    def __iter__(self) -> Iterator[bytes]:
        for member, content in self.members():
            yield header(member.path, member.size)
            yield from map(bytes, content)
            yield padding(member.size)
        yield END

    def members(self) -> Iterator[Entry]:
        documents = {name: raw for name in _DOCUMENTS if (raw := self._document(name)) is not None}
        if not documents.keys() & {"index.json", "manifest.json"}:
            raise ArchiveInvalid(
                "not a folder of images: it has neither index.json nor manifest.json", hint=_HINT
            )
        listed = _parsed(documents.get("manifest.json"))
        if "index.json" not in documents and isinstance(listed, dict):
            yield from self._directory(documents["manifest.json"], listed)
            return
        for name, raw in documents.items():
            yield _in_memory(name, raw)
        blobs = map(_in_layout, _digests(_parsed(documents.get("index.json"))))
        yield from self._files([*_listed(listed), *blobs], lambda path: (path,))

    def _directory(self, raw: bytes, manifest: dict[str, Any]) -> Iterator[Entry]:
        """Yield the members of the layout that a folder of ``dir:`` corresponds to."""
        yield _in_memory("index.json", _index_of(raw, manifest))
        yield _in_memory(_in_layout(Digest.of(raw)), raw)
        yield from self._files([_in_layout(digest) for digest in _digests(manifest)], _in_directory)

    def _document(self, name: str) -> bytes | None:
        """Return a document; None if it does not exist."""
        file = self._opened(name)
        if file is None:
            return None
        with file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_DOCUMENT:
                raise ArchiveInvalid(f"{name} is {size} bytes, more than {MAX_DOCUMENT}")
            return b"".join(read_at(file, 0, size))

    def _files(
        self, waiting: list[str], candidates: Callable[[str], Iterable[str]]
    ) -> Iterator[Entry]:
        """Yield the members with these paths, and the blobs to which they refer.

        A member is the first existing file of its candidates.
        """
        seen = set(_DOCUMENTS)
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            if len(seen) > MAX_MEMBERS:
                raise ArchiveInvalid(f"the folder has more than {MAX_MEMBERS} files")
            file = next(filter(None, map(self._opened, candidates(path))), None)
            if file is None:  # the reader of the archive decides whether it is needed
                continue
            size = os.fstat(file.fileno()).st_size
            stays = len(self._open) < _MOST_OPEN
            if stays:
                self._open.append(file)
            with nullcontext() if stays else file:
                if size <= MAX_DOCUMENT and os.pread(file.fileno(), 1, 0) == b"{":
                    document = _parsed(b"".join(read_at(file, 0, size)))
                    waiting += map(_in_layout, _digests(document))
                member = Member(path, "file", size, place=(file, 0) if stays else None)
                yield member, map(memoryview, read_at(file, 0, size))

    def _opened(self, path: str) -> IO[bytes] | None:
        """Open a regular file; None if it does not exist.

        A link could refer to any file of this machine, so its target must be in the folder, too.
        """
        full = self._folder / path
        try:
            file = os.fdopen(self._descriptor(full), "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArchiveInvalid(f"cannot read {full}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise ArchiveInvalid(f"cannot read {full}: it is not a regular file")
        return file

    def _descriptor(self, path: Path) -> int:
        root, target = os.path.realpath(self._folder), os.path.realpath(path, strict=True)
        if self._follow_links:
            return os.open(target, _READ)
        if not Path(target).is_relative_to(root):
            command = f"imgload load --follow-links --from {shlex.quote(str(self._folder))}"
            raise ArchiveInvalid(
                f"cannot read {path}: it is a link that leads out of the folder, to {target}",
                hint=f"if you trust the folder: {command}",
            )
        return _open_below(root, Path(target).relative_to(root))


def _open_below(root: str, path: Path) -> int:
    """Open a file below a folder without a link, in case one was put there since."""
    parent = os.open(root, _READ | os.O_DIRECTORY)
    for part in path.parent.parts:
        parent = _open_in(parent, part, os.O_DIRECTORY)
    return _open_in(parent, path.name, 0)


def _open_in(parent: int, name: str, flags: int) -> int:
    try:
        return os.open(name, _READ | os.O_NOFOLLOW | flags, dir_fd=parent)
    finally:
        os.close(parent)


def _parsed(raw: bytes | None) -> Any:
    """Return a document; None if it is malformed, which the reader of the archive reports."""
    with suppress(ValueError):
        return load_json(raw or b"")
    return None


def _digests(document: Any) -> Iterator[Digest]:
    """Yield the digests of all descriptors in a document."""
    if isinstance(document, dict):
        if digest := Digest.try_parse(document.get("digest")):
            yield digest
        document = list(document.values())
    for value in document if isinstance(document, list) else ():
        yield from _digests(value)


def _listed(entries: Any) -> Iterator[str]:
    """Yield the paths in the ``manifest.json`` of a docker-archive."""
    for entry in entries if isinstance(entries, list) else ():
        layers = dig(entry, "Layers")
        for path in (dig(entry, "Config"), *(layers if isinstance(layers, list) else ())):
            if isinstance(path, str):
                yield inside(path)


def _in_layout(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _in_directory(path: str) -> tuple[str, ...]:
    """Return the files of a blob or manifest in ``dir:`` (containers/image: directory/)."""
    _, algorithm, name = path.split("/")
    if algorithm != "sha256":
        name = f"{algorithm}-{name}"
    return name, f"{name}.manifest.json"


def _index_of(raw: bytes, manifest: dict[str, Any]) -> bytes:
    kind = INDEX if "manifests" in manifest else MANIFEST
    return Index.build(
        (Descriptor(text_at(manifest, "mediaType") or kind, Digest.of(raw), len(raw)),)
    )


def _in_memory(path: str, data: bytes) -> Entry:
    return Member(path, "file", len(data)), [memoryview(data)]
