"""Small inputs that expand enormously; the cost of refusing them must be bounded."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from random import Random

from imgload.oci import tar
from imgload.oci.digest import Digest
from imgload.oci.document import CONFIG, INDEX, MANIFEST
from tests.unit import archives

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LARGE = 7 << 20
_NUMBERS = (0, 5, 7)
"""Seeds that generate the largest bombs of most kinds."""


def bomb(name: str) -> bytes:
    """Return one of `NAMES`: an archive that grows by decompression, or by repetition."""
    kind, _, number = name.partition("-")
    if kind in _STREAMS:
        return _STREAMS[kind]()
    return gzip.compress(_BOMBS[kind](Random(int(number))), 1)


def _gzip_members() -> bytes:
    """Return empty members, each of which needs a new decompressor."""
    return gzip.compress(b"", mtime=0) * 100_000


def _gzip_bytes() -> bytes:
    """Return members of one byte each."""
    return gzip.compress(b"x", mtime=0) * 100_000


def _zstd_frames() -> bytes:
    """Return empty frames, each of which needs a new decompressor."""
    return zstd.compress(b"") * 200_000


def _zstd_behind() -> bytes:
    """Return 20 GiB of zeros after the end marker, in 1 MB."""
    return zstd.compress(archives.pack(archives.oci(archives.Image()))) + _zeros_in_frames(20 << 10)


def _zstd_window() -> bytes:
    """Return a frame that requires a window of 2 GiB."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"


def _zeros_in_frames(count: int) -> bytes:
    return zstd.compress(bytes(1 << 20)) * count


def _zeros(random: Random) -> bytes:
    """Return a layer of zeros."""
    return archives.pack(
        [*archives.oci(archives.Image()), ("zeros", bytes(random.randrange(64 << 20)))]
    )


def _members(random: Random) -> bytes:
    """Return more members than an archive usually has, with paths of any length."""
    count = random.choice((1000, 20_000, 150_000, 250_000))
    length = random.choice((1, 90, 4000 if count < 10_000 else 200, 3000))
    headers = (
        tar.header(f"{i:0>{length}}", 0) for i in range(min(count, 160_000_000 // (length + 512)))
    )
    return b"".join(headers) + tar.END


def _documents(random: Random) -> bytes:
    """Return many large documents."""
    size = random.choice((100, 1 << 16, 1 << 20))
    raw = b'{"x":"' + b"y" * size + b'"}'
    return archives.pack((f"{i}.json", raw) for i in range(60_000_000 // size // 4))


def _pieces(random: Random) -> bytes:
    """Return a document of very many small values, in half of the cases a config."""
    piece = random.choice(
        (b"[],", b"{},", b"0,", b'"a",', b"[[]],", b'{"a":{}},', b"1.5,", b"12345,")
    )
    raw = b'{"manifests":[' + piece * (_LARGE // len(piece)) + b"0]}"
    if random.random() < 0.5:
        config = b'{"rootfs":{"diff_ids":[]},"x":[' + piece * (_LARGE // len(piece)) + b"0]}"
        manifest = archives.encode({"config": archives.descriptor(config, CONFIG), "layers": []})
        entry = archives.descriptor(manifest, MANIFEST)
        blobs = (archives.blob(config), archives.blob(manifest))
        return archives.pack([*blobs, ("index.json", archives.index(entry))])
    return archives.pack([(random.choice(("index.json", "manifest.json", "a.json")), raw)])


def _keys(random: Random) -> bytes:
    """Return a document of very many keys."""
    value = dict.fromkeys(map(str, range(random.choice((1000, 400_000)))), 0)
    key = random.choice(("annotations", "x"))
    entry = archives.descriptor(b"", "x", **{key: value})
    return archives.pack([("index.json", archives.index(entry))])


def _deep(random: Random) -> bytes:
    """Return a document that is nested more deeply than any stack."""
    depth = random.choice((500, 3000, 1_000_000))
    opened, closed = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    raw = opened * depth + b"1" + closed * depth
    return archives.pack([(random.choice(("index.json", "manifest.json")), raw)])


def _digits(random: Random) -> bytes:
    """Return a document with a number that takes long to convert."""
    entry = archives.descriptor(b"", "x")
    raw = archives.index(entry).replace(
        b'"size": 0', b'"size": ' + b"9" * random.choice((4000, _LARGE))
    )
    return archives.pack([("index.json", raw)])


def _wide(random: Random) -> bytes:
    """Return many entries that all have the same many layers."""
    layers = (archives.layer(""),) * random.choice((100, 1000))
    image = archives.Image(layers)
    count = random.choice((10, 1000))
    if random.random() < 0.5:
        entries = [image.entry] * count
        return archives.pack(
            [*archives.unique(image.members), ("index.json", archives.index(*entries))]
        )
    path = f"{image.image_id.hex}.json"
    listed = [{"Config": path, "RepoTags": [], "Layers": ["a"] * len(layers)}] * count
    members = [
        ("a", layers[0]),
        (path, image.config),
        ("manifest.json", json.dumps(listed).encode()),
    ]
    return archives.pack(members)


def _again(random: Random) -> bytes:
    """Return a large document to which many entries refer."""
    kind, size = random.choice(
        ((0, 1 << 20), (1, 1 << 20), (2, 1 << 20), (2, 7 << 20), (1, 7 << 20))
    )
    heavy = {"x": ["y" * 100] * (size // 104), "rootfs": {"diff_ids": []}, "manifests": []}
    raw = json.dumps(heavy).encode()
    blob = archives.blob(raw)
    if kind == 0:
        index = archives.index(*[archives.descriptor(raw, INDEX)] * 900)
        return archives.pack([blob, ("index.json", index)])
    if kind == 1:
        listed = json.dumps([{"Config": blob[0], "RepoTags": [], "Layers": []}] * 900)
        return archives.pack([blob, ("manifest.json", listed.encode())])
    config = archives.descriptor(raw, CONFIG)
    manifests = [archives.encode({"config": config, "layers": [], "x": i}) for i in range(900)]
    index = archives.index(*(archives.descriptor(m, MANIFEST) for m in manifests))
    return archives.pack([blob, *map(archives.blob, manifests), ("index.json", index)])


def _tower(random: Random) -> bytes:
    """Return nested indexes."""
    image = archives.Image()
    width, height = random.choice(((2, 12), (30, 3), (900, 4), (10, 4)))
    members = image.members
    entry = image.entry
    for _ in range(height):
        raw = archives.index(*[entry] * width)
        members.append(archives.blob(raw))
        entry = archives.descriptor(raw, INDEX)
    return archives.pack([*members, ("index.json", archives.index(entry))])


def _links(random: Random) -> bytes:
    """Return chains of links."""
    count = random.choice((5, 30, 20_000))
    members: list[archives.Entry] = [(f"l{i}", f"l{i + 1}") for i in range(count)]
    listed = [{"Config": "l0", "Layers": [f"l{i}" for i in range(min(count, 999))]}]
    return archives.pack([*members, ("manifest.json", json.dumps(listed).encode())])


def _pax(random: Random) -> bytes:
    """Return very many extended headers."""
    size = random.choice((512, 1 << 16, 1 << 20))
    record = random.choice((b"9 path=x\n", b"9 size=1\n", b"6 a=b\n", b"5 a=\n", b"0"))
    data = (record * (size // len(record))).ljust(size, b"\0")
    header = bytearray(tar.header("x", size))
    header[156:157] = random.choice((b"x", b"g", b"L", b"K"))
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 0x20)
    return (bytes(header) + data) * (30_000_000 // size // 2) + tar.END


def _layers(random: Random) -> bytes:
    """Return an image with very many diff IDs."""
    digests = [str(Digest.of(b"%d" % i)) for i in range(random.choice((900, 1001, 90_000)))]
    config = json.dumps({"rootfs": {"diff_ids": digests}}).encode()
    listed = [{"Config": "c.json", "Layers": ["l"] * len(digests)}]
    return archives.pack([("c.json", config), ("manifest.json", json.dumps(listed).encode())])


_BOMBS: dict[str, Callable[[Random], bytes]] = {
    kind.__name__.removeprefix("_"): kind
    for kind in (
        _zeros,
        _members,
        _documents,
        _pieces,
        _keys,
        _deep,
        _digits,
        _wide,
        _again,
        _tower,
        _links,
        _pax,
        _layers,
    )
}
_STREAMS: dict[str, Callable[[], bytes]] = {
    kind.__name__.removeprefix("_"): kind
    for kind in (_gzip_members, _gzip_bytes, _zstd_frames, _zstd_behind, _zstd_window)
}
"""Bombs that consist of a compressed stream."""
_WAYS = (1, 2, 3, 4)
"""Seeds that, with `_NUMBERS`, generate all variants of `_again` and `_pieces`."""
NAMES = (
    *(f"{kind}-{number}" for kind in _BOMBS for number in _NUMBERS),
    *(f"{kind}-{number}" for kind in ("again", "pieces", "pax") for number in _WAYS),
    *_STREAMS,
)
