"""How large a run of imgload gets, and images that are too large to be made in memory."""

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
    """A run of the command, with the most that it took at any time.

    `peak` is in KiB of resident memory, `written` in bytes that went to a disk.
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
        """Every node's part of the report, of all images."""
        return [node for image in json.loads(self.stdout)["images"] for node in image["nodes"]]

    def row(self, *cells: str) -> str:
        """Return the run as a row of the table in docs/reliability-scale.md."""
        size = f"{self.peak / 1024:.0f} MB"
        numbers = (f"{self.seconds:.1f} s", size, str(self.descriptors), str(self.threads))
        return f"| {' | '.join((*cells, *numbers))} |"


TEMPORARY = "IMGLOAD_SCALE_TEMPORARY"
"""Names the variable with imgload's own temporary folder; Podman's client leaves files in its."""


def run(*args: str | Path) -> Run:
    """Run imgload, and look at it all the while."""
    env = {**os.environ, "TMPDIR": os.environ.get(TEMPORARY, tempfile.gettempdir())}
    argv = [sys.executable, "-m", "imgload", *map(str, args)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.monotonic()
        with subprocess.Popen(argv, stdout=out, stderr=err, env=env) as p:
            peak = _watched(p)
        seconds = time.monotonic() - start
        for file in (out, err):
            file.seek(0)
        return Run(p.returncode, out.read(), err.read(), seconds, **peak)


def _watched(process: subprocess.Popen[bytes]) -> dict[str, int]:
    most: dict[str, int] = {}
    while process.poll() is None:
        for name, value in _look(Path(f"/proc/{process.pid}")).items():
            most[name] = max(value, most.get(name, 0))
        time.sleep(_PROBE_SECONDS)
    return most


def _look(place: Path) -> dict[str, int]:
    try:
        lines = (place / "status").read_text() + (place / "io").read_text()
        descriptors = len([*(place / "fd").iterdir()])
    except OSError:  # it has just ended
        return {}
    told = {name: value.split() for name, _, value in (x.partition(":") for x in lines.split("\n"))}
    if "VmHWM" not in told:
        return {}
    return {
        "peak": int(told["VmHWM"][0]),
        "threads": int(told["Threads"][0]),
        "written": int(told["write_bytes"][0]),
        "descriptors": descriptors,
    }


def require_disk(lab: Lab, size: int) -> None:
    """Fail where the test would fill the disk: what was not run has not passed."""
    free = shutil.disk_usage(lab.paths.root).free
    if free < size + _SPARE:
        needed = (size + _SPARE) // GIB
        pytest.fail(f"needs {needed} GiB of free disk below {lab.paths.root}: {free // GIB} GiB")


def noise(size: int) -> Iterable[bytes]:
    """Yield bytes that no compression makes smaller: its window is less than one piece."""
    piece = os.urandom(MIB)
    for start in range(0, size, MIB):
        yield piece[: size - start]


def build_layers(engine: Engine, tag: str, count: int, size: int) -> str:
    """Build an image of layers of noise, each of so many bytes; its ID."""
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
    """Make an image of a single layer with one file, while it streams; its ID."""
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
    """Pieces as a file; `tarfile` asks for 16 KiB at a time."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        taken = min(len(buffer), len(self._held))
        buffer[:taken] = self._held[:taken]
        self._held = self._held[taken:]
        return taken


def discard(engine: Engine, tag: str) -> None:
    """Remove an image, if it is there."""
    with suppress(CommandError):
        engine.cli("rmi", "--force", tag)


def save_many(path: Path, numbers: Iterable[int]) -> None:
    """Write a docker-archive of images of one shared layer and one of their own each.

    They are called ``docker.io/many/app:NUMBER``.
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
    """Add a layer of one file; its hex digest."""
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
