"""Unpack an archive into members that can be mutated, and pack them again."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile

import attrs

from imgload.core.errors import ImgloadError
from imgload.sources.streams import chunks_of

_MOST = 4 << 20
_ROUNDS = 8


@attrs.frozen
class Member:
    """One member; `kind` is its type in the tar header."""

    path: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""


def plain(data: bytes) -> bytes:
    """Return the decompressed tar stream of an input, or the input if imgload refuses it."""
    content = bytearray()
    try:
        for chunk in chunks_of(io.BytesIO(data), scanning=False):
            content += chunk
            if len(content) > _MOST:
                break
    except ImgloadError:
        return data
    return bytes(content)


def unpack(archive: bytes) -> list[Member]:
    """Return the members that tarfile reads; none if it fails."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            return [_member(tar, info) for info in tar]
    except Exception:  # noqa: BLE001 - tarfile fails in many ways
        return []


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    file = tar.extractfile(info) if info.isreg() and info.size < _MOST else None
    return Member(info.name, file.read() if file else b"", info.type, info.linkname)


def pack(members: list[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return the tar of these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for member in members:
            info = tarfile.TarInfo(member.path.replace("\0", "0"))
            info.type, info.linkname = member.kind, member.link
            info.size = len(member.content)
            tar.addfile(info, io.BytesIO(member.content))
    return buffer.getvalue()


def rewritten(members: list[Member], old: Member, content: bytes) -> list[Member]:
    """Return the members with new content for one of them, and all digests updated."""
    changed = [attrs.evolve(old, content=content) if m is old else m for m in members]
    moves = [(old.content, content)]
    for _ in range(_ROUNDS):
        moved = [_following(member, moves) for member in changed]
        pairs = zip(changed, moved, strict=True)
        moves = [(a.content, b.content) for a, b in pairs if a.content != b.content]
        changed = moved
        if not moves:
            break
    return changed


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _following(member: Member, moves: list[tuple[bytes, bytes]]) -> Member:
    """Return a member with updated digests and sizes of changed contents."""
    path, content = member.path, member.content
    for before, after in moves:
        path = path.replace(_sum(before), _sum(after))
        if _sum(before).encode() in content:
            content = content.replace(_sum(before).encode(), _sum(after).encode())
            size = rb'("size": ?)%d\b' % len(before)
            content = re.sub(size, rb"\g<1>%d" % len(after), content)
    return attrs.evolve(member, path=path, content=content)


def compressed(archive: bytes) -> bytes:
    """Return a compressed archive, for seeds: small and reproducible."""
    return gzip.compress(archive, mtime=0)
