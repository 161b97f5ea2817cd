"""Measure the resources of a run, and create images that are too large for memory."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.lab import CommandError, Lab
from tests.lab.engine import Engine

MIB = 1 << 20
GIB = 1 << 30
_SPARE = 15 * GIB
_PROBE_SECONDS = 0.02


@attrs.frozen
class Run:
    """A run of the command, with its peak use of resources.

    `peak` is resident memory in KiB, `written` the number of bytes written to a disk.
    """

    status: int
    stdout: str
    stderr: str
    seconds: float
    peak: int = 0
    descriptors: int = 0
    threads: int = 0
    written: int = 0

    def nodes(self) -> list[dict[str, Any]]:
        """Return the results of all nodes for all images."""
        return [node for image in json.loads(self.stdout)["images"] for node in image["nodes"]]

    def row(self, *cells: str) -> str:
        """Return the run as a row of the table in docs/reliability-scale.md."""
        size = f"{self.peak / 1024:.0f} MB"
        numbers = (f"{self.seconds:.1f} s", size, str(self.descriptors), str(self.threads))
        return f"| {' | '.join((*cells, *numbers))} |"


TEMPORARY = "IMGLOAD_SCALE_TEMPORARY"
"""The variable for imgload's temporary folder; Podman's client leaves files in `TMPDIR`."""


def run(*args: str | Path) -> Run:
    """Run imgload, and sample its use of resources."""
    env = {**os.environ, "TMPDIR": os.environ.get(TEMPORARY, tempfile.gettempdir())}
    argv = [sys.executable, "-m", "imgload", *map(str, args)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.monotonic()
        with subprocess.Popen(argv, stdout=out, stderr=err, env=env) as p:
            peak = _peaks(p)
        seconds = time.monotonic() - start
        for file in (out, err):
            file.seek(0)
        return Run(p.returncode, out.read(), err.read(), seconds, **peak)


def _peaks(process: subprocess.Popen[bytes]) -> dict[str, int]:
    most: dict[str, int] = {}
    while process.poll() is None:
        for name, value in _sample(Path(f"/proc/{process.pid}")).items():
            most[name] = max(value, most.get(name, 0))
        time.sleep(_PROBE_SECONDS)
    return most


def _sample(process: Path) -> dict[str, int]:
    try:
        lines = (process / "status").read_text() + (process / "io").read_text()
        descriptors = len([*(process / "fd").iterdir()])
    except OSError:  # the process has just ended
        return {}
    fields = {
        name: value.split() for name, _, value in (x.partition(":") for x in lines.split("\n"))
    }
    if "VmHWM" not in fields:
        return {}
    return {
        "peak": int(fields["VmHWM"][0]),
        "threads": int(fields["Threads"][0]),
        "written": int(fields["write_bytes"][0]),
        "descriptors": descriptors,
    }


def require_disk(lab: Lab, size: int) -> None:
    """Fail, not skip, if the test would fill the disk."""
    free = shutil.disk_usage(lab.paths.root).free
    if free < size + _SPARE:
        needed = (size + _SPARE) // GIB
        pytest.fail(f"needs {needed} GiB of free disk below {lab.paths.root}: {free // GIB} GiB")


def noise(size: int) -> Iterable[bytes]:
    """Yield incompressible bytes: a piece is longer than the window of a compression."""
    piece = os.urandom(MIB)
    for start in range(0, size, MIB):
        yield piece[: size - start]


def build_layers(engine: Engine, tag: str, count: int, size: int) -> str:
    """Build an image with `count` layers of `size` random bytes; return its ID."""
    with tempfile.TemporaryDirectory(dir=engine.paths.root) as folder:
        context = Path(folder)
        context.chmod(0o755)
        with (context / "noise").open("wb") as file:
            file.writelines(noise(size))
        lines = ["FROM scratch", *(f"COPY noise /layer{number}" for number in range(count))]
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        engine.cli("build", "-q", "-t", tag, *engine.build_options, context)
    return engine.image_id(tag)


def import_layer(engine: Engine, tag: str, size: int) -> str:
    """Stream an image of a single layer with one file into the engine; return its ID."""
    argv = [*engine.client, "import", "-", tag]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin
        with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("noise")
            member.size = size
            archive.addfile(member, _Reader(noise(size)))
    assert process.returncode == 0
    return engine.image_id(tag)


class _Reader(io.RawIOBase):
    """A file of pieces; `tarfile` reads 16 KiB at a time."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


def discard(engine: Engine, tag: str) -> None:
    """Remove an image if it exists."""
    with suppress(CommandError):
        engine.cli("rmi", "--force", tag)


def save_many(path: Path, numbers: Iterable[int]) -> None:
    """Write a docker-archive of images that share a layer and have one layer of their own.

    Their names are ``docker.io/many/app:NUMBER``.
    """
    with tarfile.open(path, "w") as archive:
        shared = _put_layer(archive, "shared", b"shared")
        entries = [_put_image(archive, number, shared) for number in numbers]
        _put(archive, "manifest.json", json.dumps(entries).encode())


def _put_image(archive: tarfile.TarFile, number: int, shared: str) -> dict[str, Any]:
    layers = [shared, _put_layer(archive, f"own{number}", b"%d" % number)]
    value = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in layers]},
        "history": [{"created_by": layer} for layer in layers],
    }
    config = json.dumps(value).encode()
    name = f"{sha256(config).hexdigest()}.json"
    _put(archive, name, config)
    paths = [f"{layer}/layer.tar" for layer in layers]
    return {"Config": name, "RepoTags": [f"many/app:{number}"], "Layers": paths}


def _put_layer(archive: tarfile.TarFile, name: str, content: bytes) -> str:
    """Add a layer of one file; return its hex digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        _put(layer, name, content)
    digest = sha256(buffer.getvalue()).hexdigest()
    _put(archive, f"{digest}/layer.tar", buffer.getvalue())
    return digest


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
