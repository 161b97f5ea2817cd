"""Remove the leftovers of stopped and killed engines of the lab."""

import contextlib
import os
import re
import shutil
import signal
import time
from collections import defaultdict
from pathlib import Path

from tests.lab.machine import Paths
from tests.lab.shell import run, succeeds

_SOCKET = re.compile(r"unix://(/run/containerd/s/[0-9a-f]{64})\b")
_PROGRAMS = ("dockerd", "containerd", "conmon", "podman", "docker-proxy", "runc")


def sweep(paths: Paths, *, purge: bool = False) -> None:
    """End the lab's processes, mounts and bridges; remove its files except the cache."""
    evict(paths.root, paths.run)
    for link in Path("/sys/class/net").glob(f"lab{paths.octet}-*"):
        succeeds("ip", "link", "delete", link.name)
    unlink_shims_sockets(paths.run)
    _remove(paths.run)
    for path in paths.root.iterdir() if paths.root.exists() else ():
        if purge or path != paths.cache:
            _remove(path)
    if purge:
        _remove(paths.root)


def evict(*folders: Path) -> None:
    """End the engines that were started with files below these folders, and unmount them."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    _kill(_leftovers(prefixes))
    for mount in _mounts(prefixes):
        run("umount", "--lazy", mount)


def unlink_shims_sockets(folder: Path) -> None:
    """Remove the sockets of killed shims, which containerd lists below its run folder."""
    for name in ("address", "bootstrap.json"):  # before and since containerd 2.0
        for note in folder.rglob(f"io.containerd.runtime.v2.task/*/*/{name}"):
            for path in _SOCKET.findall(note.read_text(errors="replace")):
                Path(path).unlink(missing_ok=True)


def _leftovers(prefixes: tuple[str, ...]) -> set[int]:
    """Return the processes of the engines and all their descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    pending = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children[_parent(folder)].append(int(folder.name))
            if _belongs(folder, prefixes):
                pending.append(int(folder.name))
    pids: set[int] = set()
    while pending:
        pid = pending.pop()
        if pid not in pids:
            pids.add(pid)
            pending += children[pid]
    return pids


def _parent(folder: Path) -> int:
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def _belongs(folder: Path, prefixes: tuple[str, ...]) -> bool:
    command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    ours = any(prefix in word for word in command for prefix in prefixes)
    return ours and Path(command[0]).name.startswith(_PROGRAMS)


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(_alive(pid) for pid in pids):
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _mounts(prefixes: tuple[str, ...]) -> list[str]:
    """Return the mount points below the prefixes, innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1] for line in lines]
    return [point for point in reversed(points) if point.startswith(prefixes)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
