"""Streaming tar: bounded readers, and headers to write (POSIX.1-2001 ustar and pax).

`tarfile` reads an extended header of any claimed length into memory, and returns paths outside the
archive; these archives are untrusted and gigabytes long. This reader keeps one chunk in memory, and
passes the body of a member on without copying it.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Literal, Protocol, runtime_checkable

import attrs

from imgload.core.errors import ArchiveInvalid

BLOCK = 512
END = bytes(2 * BLOCK)
"""The end marker of an archive."""
MAX_MEMBERS = 50_000
MAX_EXTENDED_HEADER = 1 << 20
"""Bytes of one extended header (pax or GNU)."""
_EXTENDED, _RECORDS = 1342, 10
"""Bytes and records of all extended headers, for each member that an archive may have: 64 MiB for
the most members; tools write ten records for a member at most."""
MAX_PATH = 4096
MAX_SIZE = 1 << 40
"""Bytes of all members together."""
MAX_PADDING = 64 << 20
"""Bytes to read after the end marker; the rest is ignored."""

Place = tuple[IO[bytes], int]
"""A file, and the offset of some content."""
Kind = Literal["file", "dir", "link", "other"]
_KINDS: dict[bytes, Kind] = {b"0": "file", b"\0": "file", b"7": "file", b"5": "dir"}
_KINDS |= {b"1": "link", b"2": "link"}
_KEYS = {b"path", b"linkpath", b"size", b"uid", b"gid"}
_SPARSE = b"GNU.sparse."
_LENGTH = re.compile(rb"([0-9]{1,7}) ")
_SUM = re.compile(rb"[0-7 \0]{8}")
_NAME_LENGTH = 100


@attrs.frozen
class Member:
    """One member of an archive; `size` in bytes, `target` the path to which a link leads.

    `place` is where its content is, if the archive is a file or a folder.
    """

    path: str
    kind: Kind
    size: int
    target: str = ""
    place: Place | None = attrs.field(default=None, eq=False)


@runtime_checkable
class Seekable(Protocol):
    """Chunks that can be skipped without reading them; those of a file have it as `file`."""

    def skip(self, size: int) -> None: ...


@runtime_checkable
class Members(Protocol):
    """An archive that is not a tar, such as a folder."""

    def members(self) -> Iterator[tuple[Member, Iterable[memoryview]]]: ...


class _Input:
    """Exact reads from an iterable of chunks."""

    def __init__(self, chunks: Iterable[bytes] | Iterable[memoryview], most: int) -> None:
        self._source = chunks if isinstance(chunks, Seekable) else None  # isinstance is slow
        self._chunks: Iterator[bytes | memoryview] = iter(chunks)
        self._chunk = memoryview(b"")
        self._extended = most * _EXTENDED
        self._records = most * _RECORDS

    def slices(self, size: int, *, whole: bool = True) -> Iterator[memoryview]:
        """Yield `size` bytes as slices of the chunks; fewer at the end, unless `whole`."""
        while size and not self.at_end():
            piece, self._chunk = self._chunk[:size], self._chunk[size:]
            size -= len(piece)
            yield piece
        if size and whole:
            raise ArchiveInvalid(f"the archive ends {size} bytes too early")

    def skip(self, size: int) -> None:
        available = min(size, len(self._chunk))
        self._chunk = self._chunk[available:]
        if self._source:
            self._source.skip(size - available)
        else:
            for _ in self.slices(size - available):
                pass

    def place(self) -> Place | None:
        """Return the file and the offset of the next byte, if it is a file."""
        file: IO[bytes] | None = getattr(self._source, "file", None)
        return (file, file.tell() - len(self._chunk)) if file else None

    def at_end(self) -> bool:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._chunk = memoryview(chunk)
        return False

    def drain(self) -> None:
        """Read the padding after the end marker, to save the sender a broken pipe."""
        left = MAX_PADDING - len(self._chunk)
        self._chunk = memoryview(b"")
        while left > 0 and (chunk := next(self._chunks, None)) is not None:
            left -= len(chunk)

    def header(self, *, first: bool, is_layer: bool) -> bytes | None:
        """Return the next header, or None at the end marker, which a layer may lack."""
        if is_layer and self.at_end():
            return None
        if not first and self.at_end():
            raise ArchiveInvalid("the archive ends without its end marker: it is cut off")
        block = b"".join(self.slices(BLOCK, whole=not first))
        if first and not is_layer and block in {b"", bytes(BLOCK)}:
            raise ArchiveInvalid("the archive is empty")
        if block == bytes(BLOCK):
            return None
        field = block[148:156]
        if len(block) < BLOCK or not _SUM.fullmatch(field) or _checksum(block) != _octal(field):
            raise ArchiveInvalid("not a tar archive" if first else "a tar header is damaged")
        return block

    def extended_header(self, kind: bytes, size: int) -> dict[bytes, bytes]:
        """Return the fields of the next member that its extended header replaces."""
        if size > MAX_EXTENDED_HEADER:
            raise ArchiveInvalid(f"an extended tar header claims {size} bytes")
        self._spend(size, 0)
        data = b"".join(self.slices(size))
        self.skip(-size % BLOCK)
        if kind in b"LK":
            return {b"path" if kind == b"L" else b"linkpath": data.rstrip(b"\0")}
        return self._pax(data) if kind == b"x" else {}

    def _spend(self, size: int, records: int) -> None:
        self._extended -= size
        self._records -= records
        if self._extended < 0 or self._records < 0:
            raise ArchiveInvalid("the archive has too many extended tar headers")

    def _pax(self, data: bytes) -> dict[bytes, bytes]:
        records: dict[bytes, bytes] = {}
        start = 0
        while start < len(data):
            match = _LENGTH.match(data, start)
            end = start + int(match[1]) if match else 0
            if match is None or not match.end() < end <= len(data):
                raise ArchiveInvalid("a pax header is malformed")
            self._spend(0, 1)
            key, _, value = data[match.end() : end - 1].partition(b"=")
            if key in _KEYS or key.startswith(_SPARSE):
                records[key] = value
            start = end
        return records


class Body:
    """A member's content; read it once, before the next member."""

    def __init__(self, source: _Input, size: int) -> None:
        self._source = source
        self._left = size

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self._source.slices(self._left):
            self._left -= len(piece)
            yield piece

    def skip(self) -> None:
        self._source.skip(self._left)
        self._left = 0

    def place(self) -> Place | None:
        """Return where it begins, if the archive is a file."""
        return self._source.place()


def read_tar(chunks: Iterable[bytes]) -> Iterator[tuple[Member, Iterable[memoryview]]]:
    """Yield the members of a tar stream, or of `Members`, with their bodies."""
    if isinstance(chunks, Members):
        yield from chunks.members()
        return
    for head, body in read_headers(chunks, most=MAX_MEMBERS):
        if head.kind == b"S" or any(key.startswith(_SPARSE) for key in head.extended):
            raise ArchiveInvalid("the archive has a sparse member, which no image archive has")
        yield attrs.evolve(_member(head), place=body.place()), body


@attrs.frozen
class Header:
    """A header as bytes, with the records of its extended headers; `size` is that of the body."""

    block: bytes
    extended: Mapping[bytes, bytes]
    size: int

    @property
    def kind(self) -> bytes:
        return self.block[156:157]

    @property
    def path(self) -> bytes:
        name, prefix, magic = self.block[:100], self.block[345:500], self.block[257:263]
        parts = (prefix, name) if magic == b"ustar\0" and prefix[0] else (name,)
        own_path = b"/".join(part.partition(b"\0")[0] for part in parts)
        return self.extended.get(b"path") or own_path

    @property
    def target(self) -> bytes:
        return self.extended.get(b"linkpath") or self.block[157:257].partition(b"\0")[0]

    def number(self, start: int, end: int, key: bytes = b"") -> int:
        """Return the number in a field, unless an extended header replaces it."""
        digits = self.extended.get(key)
        return _decimal(digits) if digits else _number(self.block[start:end])


def read_headers(
    chunks: Iterable[bytes] | Iterable[memoryview], *, most: int, is_layer: bool = False
) -> Iterator[tuple[Header, Body]]:
    """Yield the headers of a tar stream, at most so many, with the bodies.

    In a layer, only files have a body, as for Go's ``archive/tar``, and there may be no end marker.
    """
    source = _Input(chunks, most)
    extended: dict[bytes, bytes] = {}
    total = 0
    for count in itertools.count():
        block = source.header(first=count == 0, is_layer=is_layer)
        if block is None:
            source.drain()
            return
        if count >= most:
            raise ArchiveInvalid(f"the archive has more than {most} members")
        kind, size = block[156:157], _number(block[124:136])
        if kind in b"xgLK":
            extended |= source.extended_header(kind, size)
            continue
        if (digits := extended.get(b"size")) is not None:
            size = _decimal(digits)
        if kind in b"12" or (is_layer and kind in b"3456"):
            size = 0
        total += size
        if total > MAX_SIZE:
            raise ArchiveInvalid(f"the members of the archive claim more than {MAX_SIZE} bytes")
        body = Body(source, size)
        yield Header(block, extended, size), body
        extended = {}
        body.skip()
        source.skip(-size % BLOCK)


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * 0x20


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise ArchiveInvalid("a tar header has a field that is not octal") from error


def _number(field: bytes) -> int:
    large = field[0] == 0x80  # noqa: PLR2004 - GNU's base-256 form, for more than 8 GiB
    return _limited(int.from_bytes(field[1:], "big") if large else _octal(field))


def _limited(size: int) -> int:
    if not 0 <= size <= MAX_SIZE:
        raise ArchiveInvalid(f"a member of the archive claims {size} bytes")
    return size


def _decimal(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,20}", digits):
        raise ArchiveInvalid(f"a member of the archive claims {_text(digits):.40} bytes")
    return _limited(int(digits))


def _member(head: Header) -> Member:
    path = inside(_text(head.path))
    kind = _KINDS.get(head.kind, "other")
    if kind != "link":
        return Member(path, kind, head.size)
    folder = posixpath.dirname(path) if head.kind == b"2" else ""
    return Member(path, kind, 0, inside(posixpath.join(folder, _text(head.target))))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def inside(path: str) -> str:
    """Normalise a path; ArchiveInvalid is raised if it leads out of the archive."""
    normal = posixpath.normpath(path)
    if len(path) > MAX_PATH or normal.startswith(("/", "../")) or normal == ".." or "\0" in path:
        raise ArchiveInvalid(f"a member's path leads out of the archive: {path!r:.200}")
    return normal


def header(path: str, size: int) -> bytes:
    """Return the header of a regular file of `size` bytes, with mode 0644, owner 0 and time 0."""
    name = path.encode()
    if len(name) <= _NAME_LENGTH:
        return _header(name, size, b"0")
    long_name = _header(b"././@LongLink", len(name), b"L") + name + padding(len(name))
    return long_name + _header(name[:_NAME_LENGTH], size, b"0")


def _header(name: bytes, size: int, kind: bytes) -> bytes:
    octal = b"%011o\0" % size
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = octal if len(octal) == 12 else b"\x80" + size.to_bytes(11, "big")  # noqa: PLR2004
    block[136:148] = b"00000000000\0"
    block[156:157], block[257:265] = kind, b"ustar\x0000"
    block[148:156] = b"%06o\0 " % _checksum(bytes(block))
    return bytes(block)


def padding(size: int) -> bytes:
    """Return the zero bytes after a member of `size` bytes."""
    return bytes(-size % BLOCK)
