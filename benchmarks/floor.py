"""The least that a rebuild can cost: the engine's push of one layer, and `ctr import` of it."""

import io
import json
import tarfile
import time
from collections.abc import Mapping

import attrs

from benchmarks.images import Builder, Image
from benchmarks.nodes import check
from imgload.oci.digest import Digest
from imgload.registry.server import receiving
from tests.lab import Cluster, Engine

_SMALL = 1 << 20
_NAME = "io.containerd.image.name"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@attrs.frozen
class Floor:
    """Seconds of the engine's push of one layer, and of `ctr import` of it."""

    push: float
    load: float

    @property
    def seconds(self) -> float:
        """Both."""
        return self.push + self.load


@attrs.define
class Shelf:
    """A registry that remembers what it was given, and keeps what is small."""

    known: dict[str, int] = attrs.field(factory=dict)
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    manifests: dict[str, bytes] = attrs.field(factory=dict)

    def stat_blob(self, digest: Digest) -> int | None:
        """Return the size of what was given before."""
        return self.known.get(str(digest))

    def upload(self, _digest: Digest | None, _size: int | None) -> "_Blob":
        """Take a blob."""
        return _Blob(self)

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Take a manifest."""
        self.manifests[str(digest)] = raw


@attrs.define
class _Blob:
    _shelf: Shelf
    _head: bytes = b""
    _size: int = 0

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= _SMALL:
            self._head += chunk

    def finish(self, digest: Digest) -> None:
        self._shelf.known[str(digest)] = self._size
        if self._size <= _SMALL:
            self._shelf.blobs[str(digest)] = self._head

    def abandon(self) -> None:
        """Keep nothing of it."""


def floor(builder: Builder, cluster: Cluster) -> Floor:
    """Do a further rebuild with the engines' own programs and nothing around them.

    The nodes have to hold the build before.
    """
    shelf = Shelf()
    with receiving(shelf) as repository:
        _push(builder.engine, builder.name, repository)
        image = builder.rebuild()
        shelf.known |= dict.fromkeys(image.diff_ids[:-1], 0)
        shelf.blobs.clear()
        shelf.manifests.clear()
        pushed = _push(builder.engine, builder.name, repository)
    archive = _layout(image, shelf)
    imported = _import(cluster, archive)
    check(cluster, image)
    return Floor(pushed, imported)


def _push(engine: Engine, name: str, repository: str) -> float:
    target = f"{repository}:floor"
    if engine.name.startswith("podman"):
        return _timed(engine, "push", "--tls-verify=false", name, f"docker://{target}")
    engine.cli("tag", name, target)
    try:
        return _timed(engine, "push", target)
    finally:
        engine.cli("rmi", target)


def _timed(engine: Engine, *args: str) -> float:
    started = time.monotonic()
    engine.cli(*args)
    return time.monotonic() - started


def _import(cluster: Cluster, archive: bytes) -> float:
    (node,) = cluster.nodes
    started = time.monotonic()
    node.ctr("images", "import", "--local", "-", stdin=archive)
    return time.monotonic() - started


def _layout(image: Image, shelf: Shelf) -> bytes:
    """Return an OCI layout with what was pushed, and with nothing that the node has."""
    (digest, raw), *_ = shelf.manifests.items()
    kind = json.loads(raw).get("mediaType", _MANIFEST)
    entry = {"mediaType": kind, "digest": digest, "size": len(raw)}
    entries = [{**entry, "annotations": {_NAME: image.name}}]
    blobs = {f"blobs/sha256/{key[7:]}": blob for key, blob in (shelf.blobs | {digest: raw}).items()}
    index = {"schemaVersion": 2, "manifests": entries}
    marks = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index}
    return _tar({**{name: json.dumps(mark).encode() for name, mark in marks.items()}, **blobs})


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
