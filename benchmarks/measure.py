"""Time, CPU time, peak memory and written bytes of a command."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks import stopwatch

_STRANGE = (
    *("DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "CONTAINER_CONNECTION"),
    "PYTHONDONTWRITEBYTECODE",  # an installed package has its bytecode
)


class Failed(Exception):
    """Something was not loaded as it should be."""


@attrs.frozen
class Usage:
    """What a command used, with its children.

    Args:
        seconds: from its start to its end.
        cpu: seconds of user and system time.
        peak: largest resident bytes of any one process.
        written: bytes for the disk, its engine's daemon's too; None where that cannot be read.

    """

    seconds: float
    cpu: float
    peak: int
    written: int | None

    def then(self, other: "Usage") -> "Usage":
        """Both, one after the other."""
        peak = max(self.peak, other.peak)
        written = add(self.written, other.written)
        return Usage(self.seconds + other.seconds, self.cpu + other.cpu, peak, written)


def add(some: int | None, more: int | None) -> int | None:
    """Return the sum of what is known, None where a part is not."""
    return None if some is None or more is None else some + more


def environment(engine: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return this process's environment with one engine, and no kube context."""
    kept = {name: value for name, value in os.environ.items() if name not in _STRANGE}
    (folder / "tmp").mkdir(exist_ok=True)
    places = {"KUBECONFIG": str(folder / "none"), "TMPDIR": str(folder / "tmp")}
    return {**kept, **places, **engine}


def measure(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    folder: Path,
    daemon: int | None,
    *,
    flush: bool = True,
) -> tuple[Usage, str]:
    """Run the command; its usage and stdout.

    Args:
        argv: the command.
        env: its environment.
        folder: where files may be left.
        daemon: process ID of the engine that works for it; what that writes is added.
        flush: bring what was written before to the disk first, which takes none of its time.

    Raises:
        Failed: when it does not exit with 0.

    """
    report = folder / "usage.json"
    command = [str(word) for word in argv]
    watch = [sys.executable, "-I", "-S", stopwatch.__file__, str(report)]
    if flush:
        os.sync()
    before = _written(daemon)
    code, out, err = _communicate([*watch, *command], env)
    if code:
        raise Failed(f"{shlex.join(command)}: exit {code}\n{(err + out).strip()}")
    usage = Usage(**json.loads(report.read_text(encoding="utf-8"))["usage"])
    after = _written(daemon)
    theirs = None if before is None or after is None else after - before
    return attrs.evolve(usage, written=add(usage.written, theirs)), out


class Watch:
    """What a running process uses from now on, after earlier writes are on the disk.

    Args:
        pid: its process ID.
        daemon: process ID of the engine that works for it; what that writes is added.

    """

    def __init__(self, pid: int, daemon: int | None) -> None:
        """Start the clock."""
        os.sync()
        self._pid, self._daemon = pid, daemon
        self._cpu, self._bytes = self._counters()
        self._began = time.monotonic()

    def usage(self) -> Usage:
        """Return the usage so far; the peak is that since the start of the process."""
        seconds = time.monotonic() - self._began
        cpu, written = self._counters()
        status = Path(f"/proc/{self._pid}/status").read_text()
        peak = int(status.partition("\nVmHWM:")[2].split()[0]) << 10
        total = None if written is None or self._bytes is None else written - self._bytes
        return Usage(seconds, cpu - self._cpu, peak, total)

    def _counters(self) -> tuple[float, int | None]:
        """Seconds of user and system time, and bytes written."""
        words = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        cpu = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return cpu, add(_written(self._pid), _written(self._daemon))


def _written(daemon: int | None) -> int | None:
    """Bytes that a daemon and its children have written to disks so far."""
    if daemon is None:
        return None
    try:
        children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
        counters = [Path(f"/proc/{pid}/io").read_text() for pid in (daemon, *children)]
    except OSError:
        return None
    return sum(int(text.partition("\nwrite_bytes: ")[2].split()[0]) for text in counters)


def _communicate(argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; an interruption ends the command with its children."""
    process = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):  # it may have ended just now
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
        raise
    return process.returncode, out, err
