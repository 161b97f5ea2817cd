"""The least that a load can cost: the engine's push or save, and `ctr` on the node, both alone."""

import contextlib
import gzip
import io
import json
import os
import secrets
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, cast

import attrs

from benchmarks.images import Builder, Image
from benchmarks.nodes import check
from imgload.oci.digest import Digest
from imgload.oci.document import (
    IMAGE_NAME,
    LAYER,
    MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
)
from imgload.registry.blob_store import BlobStore, StoredBlob
from imgload.registry.read_server import serving
from imgload.registry.server import receiving
from tests.lab import Cluster, Engine, Node

_SMALL = 1 << 20
_GZIP = b"\x1f\x8b"
_GATEWAY = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}"
_HOSTS = "/var/lib/floor"
_HOSTS_TOML = """\
server = "{url}"
capabilities = ["pull", "resolve"]
override_path = true
[host."{url}"]
capabilities = ["pull", "resolve"]
override_path = true
"""
_WRITE = f"mkdir -p {_HOSTS}/_default && cat >{_HOSTS}/_default/hosts.toml"


@attrs.frozen
class Floor:
    """Seconds of a load's two parts, each alone.

    Args:
        push: the engine's push or save; 0 for an archive, which is there.
        load: the node's `ctr images pull` from a server that has everything; for a rebuild
            `ctr images import` of the new layer, which takes less time than a pull of it.
        overlaps: whether the parts can take place at the same time.

    """

    push: float
    load: float
    overlaps: bool = False

    @property
    def seconds(self) -> float:
        """The sum of the parts, or the longer one if they can overlap."""
        return max(self.push, self.load) if self.overlaps else self.push + self.load


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


def rebuild_floor(builder: Builder, cluster: Cluster) -> Floor:
    """Do a further rebuild with the engines' own programs and nothing around them.

    The nodes must have the previous build.
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


def cold_floor(engine: Engine, image: Image, cluster: Cluster, *, pushes: bool) -> Floor:
    """Transfer the whole image out of the engine, and then into a node that has no part of it.

    Args:
        engine: which has the image, unless it is in an archive.
        image: what is transferred.
        cluster: of the one node.
        pushes: whether a push is the engine's fastest way; otherwise it saves.

    """
    if image.file:
        sent = 0.0
    elif pushes:
        with receiving(Shelf()) as repository:
            sent = _push(engine, image.name, repository)
    else:
        sent = _timed(lambda: _save(engine, image.name, Path("/dev/null")))
    with (
        tempfile.TemporaryDirectory(prefix="floor-", dir=engine.paths.folder()) as folder,
        contextlib.closing(BlobStore()) as store,
    ):
        path = image.file or Path(folder) / "image.tar"
        if not image.file:
            _save(engine, image.name, path)
        manifest = fill(store, path)
        return Floor(sent, _pull(cluster, image, store, manifest), overlaps=True)


def _push(engine: Engine, name: str, repository: str) -> float:
    target = f"{repository}:floor"
    if engine.name.startswith("podman"):
        words = ("push", "--tls-verify=false", name, f"docker://{target}")
        return _timed(lambda: engine.cli(*words))
    engine.cli("tag", name, target)
    try:
        return _timed(lambda: engine.cli("push", target))
    finally:
        engine.cli("rmi", target)


def _save(engine: Engine, name: str, path: Path) -> None:
    with path.open("wb") as file:
        subprocess.run([*engine.client, "save", name], stdout=file, check=True)


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes, after earlier writes are on the disk."""
    os.sync()
    started = time.monotonic()
    work()
    return time.monotonic() - started


def fill(store: BlobStore, path: Path) -> Manifest:
    """Store the content of an archive with plain layers, as no node has to decompress them."""
    with tarfile.open(path) as archive:
        (entry,) = json.load(_plain(archive, "manifest.json"))
        config = ImageConfig.parse(_plain(archive, entry["Config"]).read())
        _add(store, config.digest, [config.raw])
        layers = []
        for name, diff_id in zip(entry["Layers"], config.diff_ids, strict=True):
            pieces = iter(partial(_plain(archive, name).read, _SMALL), b"")
            size = _add(store, diff_id, pieces)
            layers.append(Descriptor(LAYER, diff_id, size))
        return Manifest.build(config, tuple(layers))


def _plain(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    assert file, name
    is_packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return cast("IO[bytes]", gzip.open(file)) if is_packed else file


def _add(store: BlobStore, digest: Digest, chunks: Iterable[bytes]) -> int:
    blob = StoredBlob(None)
    for chunk in chunks:
        blob.append(chunk)
    store.add_blob(digest, blob)
    return blob.complete()


def _pull(cluster: Cluster, image: Image, store: BlobStore, manifest: Manifest) -> float:
    """Return the seconds in which the node pulls an image from a store with this content."""
    (node,) = cluster.nodes
    store.add_document(manifest.digest, manifest.media_type, manifest.raw)
    store.add_name(node.name, image.name, manifest.digest)
    store.complete()
    gateway, secret = _gateway(node), secrets.token_hex(16)
    with serving(gateway, store, {secret: node.name}, lambda *_: None) as port:
        url = f"http://{gateway}:{port}/v2/{secret}"
        node.exec("sh", "-c", _WRITE, stdin=_HOSTS_TOML.format(url=url).encode())
        seconds = _timed(lambda: node.ctr("images", "pull", "--hosts-dir", _HOSTS, image.name))
    check(cluster, image)
    return seconds


def _gateway(node: Node) -> str:
    return node.engine.cli("inspect", "--format", _GATEWAY, node.name).strip()


def _import(cluster: Cluster, archive: bytes) -> float:
    (node,) = cluster.nodes
    return _timed(lambda: node.ctr("images", "import", "--local", "-", stdin=archive))


def _layout(image: Image, shelf: Shelf) -> bytes:
    """Return an OCI layout with what was pushed, and with nothing that the node has."""
    (digest, raw), *_ = shelf.manifests.items()
    kind = json.loads(raw).get("mediaType", MANIFEST)
    entry = {"mediaType": kind, "digest": digest, "size": len(raw)}
    entries = [{**entry, "annotations": {IMAGE_NAME: image.name}}]
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
