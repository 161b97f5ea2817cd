"""Image archives on disk, made without an engine."""

import hashlib
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs

from benchmarks.images import Builder, Image, layer_contents, unique
from imgload.oci.document import CONFIG, IMAGE_NAME, LAYER, MANIFEST
from tests.lab.shell import run

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OCI, DOCKER = "oci", "docker"
"""An OCI layout with compressed layers, as BuildKit writes them, that has Docker's manifest.json as
well (like `docker save` since Docker 25); and Docker's older form, with plain layers."""
Packing = Literal["gzip", "stored", "zstd"]
"""How an OCI layout's layers are compressed: `stored` is gzip that does not try."""
_PIECE = 1 << 20


@attrs.frozen
class _Blob:
    diff_id: str
    path: Path
    digest: str
    packing: Packing

    def descriptor(self) -> dict[str, object]:
        compression = "zstd" if self.packing == "zstd" else "gzip"
        return _descriptor(f"{LAYER}+{compression}", self.path, self.digest)


def pack(folders: Sequence[Path], target: Path, form: str, packing: Packing = "gzip") -> Image:
    """Write an archive of an image that has a layer for each folder.

    Args:
        folders: the layers' files, bottom up.
        target: the archive.
        form: `OCI` or `DOCKER`.
        packing: of the layers, for `OCI`.

    """
    name = unique("bench")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, ThreadPoolExecutor(2) as pool:
        blobs = Path(folder) / ("blobs/sha256" if form == OCI else "")
        blobs.mkdir(parents=True, exist_ok=True)
        pack_one = partial(_pack_layer, blobs, packing, plain=form != OCI)
        layers = list(pool.map(pack_one, folders))
        config = blobs / "config"
        config.write_text(json.dumps(_config([layer.diff_id for layer in layers])))
        image_id = _sum(config)
        config = config.rename(blobs / (_hex(image_id) + ("" if form == OCI else ".json")))
        if form == OCI:
            _write_index(Path(folder), config, image_id, layers, name)
        _write_manifest_json(Path(folder), config, layers, name)
        run(*_tar(Path(folder)), "-f", target)
    return Image(name, image_id, tuple(layer.diff_id for layer in layers), target)


def _compressor(packing: Packing) -> Any:
    if packing == "zstd":
        return zstd.ZstdCompressor()
    return zlib.compressobj(6 if packing == "gzip" else 0, wbits=31)


def _pack_layer(blobs: Path, packing: Packing, folder: Path, *, plain: bool) -> _Blob:
    content, packed = hashlib.sha256(), hashlib.sha256()
    compressor = None if plain else _compressor(packing)
    unfinished = blobs / folder.name
    with (
        subprocess.Popen(_tar(folder), stdout=subprocess.PIPE) as tar,
        unfinished.open("wb") as file,
    ):
        assert tar.stdout
        while piece := tar.stdout.read(_PIECE):
            content.update(piece)
            out = compressor.compress(piece) if compressor else piece
            packed.update(out)
            file.write(out)
        rest = compressor.flush() if compressor else b""
        packed.update(rest)
        file.write(rest)
    assert not tar.returncode, folder
    digest = packed.hexdigest()
    path = unfinished.rename(blobs / (digest if compressor else f"{digest}.tar"))
    return _Blob(f"sha256:{content.hexdigest()}", path, f"sha256:{digest}", packing)


def _tar(folder: Path) -> list[str]:
    """Return the command that writes the folder's content, without a leading `./`."""
    options = ("--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner")
    return ["tar", *options, f"--directory={folder}", *sorted(p.name for p in folder.iterdir())]


def _config(diff_ids: Sequence[str]) -> dict[str, object]:
    return {
        "architecture": run("dpkg", "--print-architecture").strip(),
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {"Cmd": ["/usr/bin/python3.11"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "COPY"} for _ in diff_ids],
    }


def _write_index(
    folder: Path, config: Path, image_id: str, layers: Sequence[_Blob], name: str
) -> None:
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(CONFIG, config, image_id),
        "layers": [layer.descriptor() for layer in layers],
    }
    path = config.with_name("manifest")
    path.write_text(json.dumps(manifest))
    digest = _sum(path)
    path = path.rename(path.with_name(_hex(digest)))
    names = {IMAGE_NAME: name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    entry = {**_descriptor(MANIFEST, path, digest), "annotations": names}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _write_manifest_json(folder: Path, config: Path, layers: Sequence[_Blob], name: str) -> None:
    entry = {
        "Config": str(config.relative_to(folder)),
        "RepoTags": [name.removeprefix("docker.io/library/")],
        "Layers": [str(layer.path.relative_to(folder)) for layer in layers],
    }
    (folder / "manifest.json").write_text(json.dumps([entry]))


def _descriptor(media_type: str, path: Path, digest: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": path.stat().st_size}


def _sum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


@attrs.define
class ArchiveBuilder(Builder):
    """Images in archives of one form, below a folder."""

    folder: Path = attrs.field(kw_only=True)
    form: str = attrs.field(kw_only=True)

    def anew(self) -> Image:
        """Write an archive with random content; gzip only stores it, at any level."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            layers = []
            for number, files in enumerate(layer_contents(self.size)):
                layer = Path(folder) / f"layer{number}"
                layer.mkdir()
                layers.append(layer)
                for name, pieces in files.items():
                    with (layer / name).open("wb") as file:
                        file.writelines(pieces)
            self.built.append(pack(layers, self.folder / "random.tar", self.form, "stored"))
        return self.newest

    def add(self, archive: Image) -> Image:
        """Add the image of an archive."""
        self.others.append(archive)
        return archive

    def clear(self) -> None:
        """Remove the archives of this round."""
        for image in self.built:
            if image.file:
                image.file.unlink(missing_ok=True)
