"""Tar as a stream: a bounded reader, and headers to write (POSIX.1-2001 ustar and pax).

`tarfile` reads whatever length an extended header claims into memory and hands out paths that
climb out of the archive; the archives here come from anywhere, and are several gigabytes long.
Nothing is held but the chunk in hand, and a member's body is passed on without being copied.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, runtime_checkable

import attrs

from imgload.core.errors import ArchiveInvalid

BLOCK = 512
MAX_MEMBERS = 50_000
MAX_EXTENDED_HEADER = 1 << 20
"""Bytes of one extended header, as pax and GNU have them."""
MAX_PATH = 4096
MAX_SIZE = 1 << 40
"""Bytes of all members together."""
MAX_PADDING = 64 << 20
"""Bytes that are read behind the end marker; what follows them is left unread."""

Kind = Literal["file", "dir", "link", "other"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "link",
    b"2": "link",
    b"5": "dir",
}
_SPARSE = b"S"
_LENGTH = re.compile(rb"([0-9]{1,7}) ")
_SUM = re.compile(rb"[0-7 \0]{8}")


@attrs.frozen
class Member:
    """One member of an archive; `size` is in bytes, `target` where a link leads in the archive."""

    path: str
    kind: Kind
    size: int
    target: str = ""


@runtime_checkable
class Seekable(Protocol):
    """Chunks that can be passed over without being read."""

    def skip(self, size: int) -> None:
        """Pass over `size` bytes of what would come next."""


class _Input:
    """Exact reads over an iterable of chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._source = chunks if isinstance(chunks, Seekable) else None  # looked up once: slow
        self._chunks = iter(chunks)
        self._held = memoryview(b"")

    def slices(self, size: int, *, whole: bool = True) -> Iterator[memoryview]:
        """Yield `size` bytes, as slices of the chunks that came in; fewer only if told so."""
        while size and not self.at_end():
            piece, self._held = self._held[:size], self._held[size:]
            size -= len(piece)
            yield piece
        if size and whole:
            raise ArchiveInvalid(f"the archive ends {size} bytes too early")

    def read(self, size: int) -> bytes:
        return b"".join(self.slices(size))

    def skip(self, size: int) -> None:
        held = min(size, len(self._held))
        self._held = self._held[held:]
        if self._source:
            self._source.skip(size - held)
        else:
            for _ in self.slices(size - held):
                pass

    def at_end(self) -> bool:
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._held = memoryview(chunk)
        return False

    def drain(self) -> None:
        """Read what follows the end marker: a sender would see a broken pipe otherwise."""
        left = MAX_PADDING - len(self._held)
        self._held = memoryview(b"")
        while left > 0 and (chunk := next(self._chunks, None)) is not None:
            left -= len(chunk)


class Body:
    """A member's content, to be read once, before the next member is asked for."""

    def __init__(self, source: _Input, size: int) -> None:
        self._source = source
        self._left = size

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self._source.slices(self._left):
            self._left -= len(piece)
            yield piece

    def skip(self) -> None:
        """Pass over all that is left."""
        self._source.skip(self._left)
        self._left = 0

    def read(self) -> bytes:
        """Return all that is left, in one piece; for members known to be small."""
        return b"".join(self)


def read_tar(chunks: Iterable[bytes]) -> Iterator[tuple[Member, Body]]:
    """Yield the members of a tar stream with their bodies.

    Args:
        chunks: the archive, in pieces of any length.

    Raises:
        ArchiveInvalid: when it is truncated, is no tar, or goes beyond the bounds above.

    """
    source = _Input(chunks)
    allowance = _Allowance()
    extended: dict[str, str] = {}
    total = 0
    for count in itertools.count():
        block = _next_header(source, first=count == 0)
        if block is None:
            source.drain()
            return
        if count >= MAX_MEMBERS:
            raise ArchiveInvalid(f"the archive has more than {MAX_MEMBERS} members")
        size = _number(block[124:136])
        if block[156:157] in b"xgLK":
            extended |= _extended(block[156:157], source, size, allowance)
            continue
        member = _member(block, size, extended)
        extended = {}
        total += member.size
        if total > MAX_SIZE:
            raise ArchiveInvalid(f"the members of the archive claim more than {MAX_SIZE} bytes")
        body = Body(source, member.size)
        yield member, body
        body.skip()
        source.skip(-member.size % BLOCK)


def _next_header(source: _Input, *, first: bool) -> bytes | None:
    if not first and source.at_end():
        raise ArchiveInvalid("the archive ends without its end marker: it is cut off")
    block = b"".join(source.slices(BLOCK, whole=not first))
    if first and block in {b"", bytes(BLOCK)}:
        raise ArchiveInvalid("the archive is empty")
    if block == bytes(BLOCK):
        return None
    told = block[148:156]
    if len(block) < BLOCK or not _SUM.fullmatch(told) or _checksum(block) != _octal(told):
        raise ArchiveInvalid("not a tar archive" if first else "a tar header is damaged")
    return block


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
    value = int.from_bytes(field[1:], "big") if large else _octal(field)
    if not 0 <= value <= MAX_SIZE:
        raise ArchiveInvalid(f"a member of the archive claims {value} bytes")
    return value


@attrs.define
class _Allowance:
    """How many bytes and records the extended headers of one archive may still have.

    A member has ten records at most in archives that tools write.
    """

    size: int = 64 << 20
    records: int = 10 * MAX_MEMBERS

    def spend(self, *, size: int = 0, records: int = 0) -> None:
        self.size -= size
        self.records -= records
        if self.size < 0 or self.records < 0:
            raise ArchiveInvalid("the archive has too many extended tar headers")


def _extended(kind: bytes, source: _Input, size: int, allowance: _Allowance) -> dict[str, str]:
    if size > MAX_EXTENDED_HEADER:
        raise ArchiveInvalid(f"an extended tar header claims {size} bytes")
    allowance.spend(size=size)
    data = source.read(size)
    source.skip(-size % BLOCK)
    if kind in b"LK":
        return {"path" if kind == b"L" else "linkpath": _text(data.rstrip(b"\0"))}
    return _pax(data, allowance) if kind == b"x" else {}


def _pax(data: bytes, allowance: _Allowance) -> dict[str, str]:
    records: dict[str, str] = {}
    start = 0
    while start < len(data):
        match = _LENGTH.match(data, start)
        end = start + int(match.group(1)) if match else 0
        if match is None or not match.end() < end <= len(data):
            raise ArchiveInvalid("a pax header is malformed")
        allowance.spend(records=1)
        key, _, value = data[match.end() : end - 1].partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise ArchiveInvalid("the archive has a sparse member, which no image archive has")
        if key in {b"path", b"linkpath", b"size"}:
            records[key.decode()] = _text(value)
        start = end
    return records


def _member(block: bytes, size: int, extended: dict[str, str]) -> Member:
    flag = block[156:157]
    if flag == _SPARSE:
        raise ArchiveInvalid("the archive has a sparse member, which no image archive has")
    if "size" in extended:
        size = _number_text(extended["size"])
    kind = _KINDS.get(flag, "other")
    path = inside(extended.get("path") or _name(block))
    if kind != "link":
        return Member(path, kind, size)
    link = extended.get("linkpath") or _text(block[157:257].partition(b"\0")[0])
    base = posixpath.dirname(path) if flag == b"2" else ""
    return Member(path, kind, 0, inside(posixpath.join(base, link)))


def _number_text(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text, re.ASCII) or int(text) > MAX_SIZE:
        raise ArchiveInvalid(f"a member of the archive claims {text:.40} bytes")
    return int(text)


def _name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def inside(path: str) -> str:
    """Normalise a path within the archive.

    Raises:
        ArchiveInvalid: when the path leads out of the archive.

    """
    normal = posixpath.normpath(path)
    if len(path) > MAX_PATH or normal.startswith(("/", "../")) or normal == ".." or "\0" in path:
        raise ArchiveInvalid(f"a member's path leads out of the archive: {path!r:.200}")
    return normal


_NAME = 100


def header(path: str, size: int) -> bytes:
    """Return the header of a plain file of `size` bytes, mode 0644, owner 0, time 0."""
    name = path.encode()
    if len(name) <= _NAME:
        return _header(name, size, b"0")
    return (
        _header(b"././@LongLink", len(name), b"L")
        + name
        + padding(len(name))
        + _header(name[:_NAME], size, b"0")
    )


def _header(name: bytes, size: int, kind: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = _size_field(size)
    block[136:148] = b"00000000000\0"
    block[156:157], block[257:265] = kind, b"ustar\x0000"
    block[148:156] = b"%06o\0 " % _checksum(bytes(block))
    return bytes(block)


def _size_field(size: int) -> bytes:
    octal = b"%011o\0" % size
    return octal if len(octal) == 12 else b"\x80" + size.to_bytes(11, "big")  # noqa: PLR2004


def padding(size: int) -> bytes:
    """Return the zero bytes that follow a member of `size` bytes."""
    return bytes(-size % BLOCK)


END = bytes(2 * BLOCK)
"""The end marker of an archive."""
