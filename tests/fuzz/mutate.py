"""Mutate an archive: its bytes, headers, members, documents, or compression."""

from __future__ import annotations

import gzip
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
from backports import zstd

from imgload.oci import tar
from tests.fuzz.members import Member, pack, plain, rewritten, unpack

_BLOCK = tar.BLOCK
_FIELDS = {"name": (0, 100), "size": (124, 136), "sum": (148, 156), "kind": (156, 157)}
_FIELDS |= {"link": (157, 257), "magic": (257, 265), "prefix": (345, 500)}
_KINDS = [bytes([c]) for c in b"01234567xgLKSVDM\0A"]
_FORMS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
_NUMBERS = [b"0", b"777777777777", b"-1", b"00000000000\0", b" 1 ", b"8", b"\xff" * 12]
_NUMBERS += [b"\x80" + n.to_bytes(11, "big") for n in (0, 1, 1 << 32, 1 << 40, 1 << 80)]
_PATHS = ["", ".", "..", "/", "../x", "/nonexistent/x", "a/../../b", "index.json", "manifest.json"]
_PATHS += ["oci-layout", "./index.json", "blobs/sha256/x", "x" * 300, "é", "\udcff", "a\nb", "con"]
_ODD: list[Any] = [None, True, False, 0, -1, 1, 1 << 31, 1 << 63, 1 << 70, 0.5, 1e308, "", "a"]
_ODD += [10**400, math.inf]
_ODD += [
    "sha256:",
    "sha256:" + "0" * 64,
    "sha512:" + "0" * 128,
    "md5:" + "0" * 32,
    "a:b@c",
    "<none>",
]
_ODD += ["\ud800", "\0", "\x1b[2J", "é" * 300, "x" * 5000, "../../x", "<none>:<none>", "1" * 5000]
_ODD += [[], {}, [[]], [{}], {"": None}, ["a"] * 50, {"os": 1, "architecture": []}]
_ODD += ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"]
_ODD += ["unknown", "docker.io/library/app:v1", "localhost/app", "linux", "arm64", "v8"]


@attrs.frozen
class Mutator:
    """Creates mutants, also with parts of other inputs; repeatable with the same `random`."""

    random: Random

    def __call__(self, data: bytes, others: Sequence[bytes]) -> bytes:
        """Return a mutant of an input."""
        archive = plain(data)
        other = plain(self.random.choice(others))
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 5))):
            archive = self._once(archive, other)
        return self._compressed(archive)

    def _once(self, archive: bytes, other: bytes) -> bytes:
        if self.random.random() < 0.65 and (members := unpack(archive)):
            return self._repacked(members, unpack(other), archive)
        mutation = self.random.choice((_flip, _splice, _cut, _blocks, _header, _header, _header))
        return mutation(self.random, archive, other)

    def _repacked(self, members: list[Member], others: list[Member], archive: bytes) -> bytes:
        mutation = self.random.choice(_OF_MEMBERS)
        form = self.random.choice(_FORMS)
        try:
            return pack(mutation(self.random, members, others), form)
        except (ValueError, RecursionError, OverflowError, tarfile.TarError):
            return archive  # tarfile cannot write the mutant

    def _compressed(self, archive: bytes) -> bytes:
        chance = self.random.random()
        if chance < 0.75:
            return archive
        data = gzip.compress(archive, 1) if chance < 0.88 else self._zstd(archive)
        if self.random.random() < 0.5:
            return data
        return self.random.choice((_flip, _cut, _splice))(self.random, data, data)

    def _zstd(self, archive: bytes) -> bytes:
        log = self.random.choice((10, 17, 23, 27, 31))
        options: dict[int, int] = {zstd.CompressionParameter.window_log: log}
        return zstd.compress(archive, options=options)


def _offset(random: Random, data: bytes) -> int:
    return random.randrange(len(data) + 1)


def _flip(random: Random, data: bytes, _other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[random.randrange(len(changed))] = random.choice((0, 1, 0x80, 0xFF, 0x20, 0x2F))
    return bytes(changed)


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    start = _offset(random, data)
    end = min(len(data), start + random.choice((0, 1, 100, 512, 5000)))
    first = _offset(random, other)
    return data[:start] + other[first : first + random.choice((1, 30, 512, 2048))] + data[end:]


def _cut(random: Random, data: bytes, _other: bytes) -> bytes:
    return data[: _offset(random, data)]


def _blocks(random: Random, data: bytes, other: bytes) -> bytes:
    """Replace whole blocks, which preserves the headers' sums."""
    blocks = [data[i : i + _BLOCK] for i in range(0, len(data), _BLOCK)]
    others = [other[i : i + _BLOCK] for i in range(0, len(other), _BLOCK)] or [b""]
    position = random.randrange(len(blocks) + 1)
    count = random.choice((0, 1, 2, 5))
    blocks[position : position + count] = random.choices([*others, bytes(_BLOCK)], k=count or 1)
    return b"".join(blocks)


def _header(random: Random, data: bytes, _other: bytes) -> bytes:
    """Change a field of a header, and usually update its sum."""
    starts = [i for i in range(0, len(data) - _BLOCK + 1, _BLOCK) if _is_header(data, i)]
    if not starts:
        return data
    start = random.choice(starts)
    block = bytearray(data[start : start + _BLOCK])
    name, (first, end) = random.choice(list(_FIELDS.items()))
    block[first:end] = _value(random, name)[: end - first].ljust(end - first, b"\0")
    if random.random() < 0.9:
        total = sum(block) - sum(block[148:156]) + 8 * 0x20
        block[148:156] = b"%06o\0 " % total
    return data[:start] + bytes(block) + data[start + _BLOCK :]


def _is_header(data: bytes, start: int) -> bool:
    return data[start + 257 : start + 262] == b"ustar"


def _value(random: Random, field: str) -> bytes:
    if field == "kind":
        return random.choice(_KINDS)
    if field in {"size", "sum"}:
        return random.choice([*_NUMBERS, b"%011o" % random.randrange(1 << 20)])
    if field == "magic":
        return random.choice((b"ustar  \0", b"ustar\x0000", b"", b"xxxxxxxx"))
    return random.choice(_PATHS).encode("utf-8", "surrogateescape")


def _drop(random: Random, members: list[Member], _others: list[Member]) -> list[Member]:
    left = list(members)
    del left[random.randrange(len(left))]
    return left


def _add(random: Random, members: list[Member], others: list[Member]) -> list[Member]:
    added = random.choice([*members, *others])
    position = random.randrange(len(members) + 1)
    return [*members[:position], added, *members[position:]]


def _merge(_random: Random, members: list[Member], others: list[Member]) -> list[Member]:
    return [*members, *others]


def _shuffle(random: Random, members: list[Member], _others: list[Member]) -> list[Member]:
    return random.sample(members, len(members))


def _swap(random: Random, members: list[Member], others: list[Member]) -> list[Member]:
    """Replace the content of a member by that of another one."""
    changed = list(members)
    position = random.randrange(len(changed))
    changed[position] = attrs.evolve(
        changed[position], content=random.choice([*members, *others]).content
    )
    return changed


def _rename(random: Random, members: list[Member], others: list[Member]) -> list[Member]:
    changed = list(members)
    position = random.randrange(len(changed))
    paths = [*_PATHS, *(m.path for m in (*members, *others))]
    changed[position] = attrs.evolve(changed[position], path=random.choice(paths))
    return changed


def _relink(random: Random, members: list[Member], _others: list[Member]) -> list[Member]:
    changed = list(members)
    position = random.randrange(len(changed))
    link = random.choice([*_PATHS, *(member.path for member in members)])
    kind = random.choice((tarfile.SYMTYPE, tarfile.LNKTYPE))
    changed[position] = attrs.evolve(changed[position], content=b"", kind=kind, link=link)
    return changed


def _damage(random: Random, members: list[Member], others: list[Member]) -> list[Member]:
    """Damage the content of a member; in most cases, update the digests."""
    member = random.choice(members)
    other = random.choice([*members, *others]).content
    content = random.choice((_flip, _cut, _splice))(random, member.content, other)
    return _put(random, members, member, content)


def _document(random: Random, members: list[Member], _others: list[Member]) -> list[Member]:
    """Change a value of a document."""
    documents = [m for m in members if m.content[:1] in {b"{", b"["}]
    if not documents:
        return members
    member = random.choice(documents)
    try:
        value = json.loads(member.content)
    except (ValueError, RecursionError):
        return members
    for _ in range(random.choice((1, 1, 2))):
        value = _changed(random, value)
    return _put(random, members, member, json.dumps(value).encode())


def _put(random: Random, members: list[Member], old: Member, content: bytes) -> list[Member]:
    if random.random() < 0.75:
        return rewritten(members, old, content)
    return [attrs.evolve(old, content=content) if m is old else m for m in members]


def _changed(random: Random, value: Any) -> Any:
    """Change one value in a document."""
    if random.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return _another(random, value)
    changed = value.copy()
    positions = list(changed) if isinstance(changed, dict) else range(len(changed))
    key: Any = random.choice(positions)
    chance = random.random()
    if chance < 0.1:
        del changed[key]
    elif chance < 0.2:
        _double(random, changed, key)
    else:
        changed[key] = _changed(random, changed[key])
    return changed


def _double(random: Random, value: Any, key: Any) -> None:
    if isinstance(value, list):
        value.extend([value[key]] * random.choice((1, 2, 200)))
    else:
        value[random.choice(("config", "layers", "manifests", "annotations", "x"))] = value[key]


def _another(random: Random, value: Any) -> Any:
    if isinstance(value, str) and value and random.random() < 0.3:
        position = random.randrange(len(value))
        return (
            value[:position]
            + random.choice(("", "/", ":", "@", "\0", "Z", "0"))
            + value[position + 1 :]
        )
    if isinstance(value, int) and random.random() < 0.5:
        return value + random.choice((-1, 1))
    if random.random() < 0.05:
        return _nested(random.choice((5, 900, 5000)))
    return random.choice(_ODD)


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(min(depth, 900)):
        value = [value]
    return value


_OF_MEMBERS: list[Callable[[Random, list[Member], list[Member]], list[Member]]] = [
    _drop,
    _add,
    _merge,
    _shuffle,
    _swap,
    _rename,
    _relink,
    _damage,
    *[_document] * 6,
]
