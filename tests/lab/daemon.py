"""Long-running processes of the lab, which later runs can detect."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from tests.lab.shell import LabError, write

_PATIENCE = 60.0
_TAIL = 20


@attrs.frozen
class Daemon:
    """A process with a pidfile and a log, both in `folder`."""

    name: str
    argv: tuple[str, ...]
    folder: Path
    ready: Callable[[], bool]
    env: Mapping[str, str] = attrs.field(factory=dict)
    cwd: Path | None = None

    @property
    def log(self) -> Path:
        """The file with the output of the process."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The ID of the running process, which this or an earlier run has started."""
        try:
            pid, born = map(int, self._pidfile.read_text().split())
        except (FileNotFoundError, ValueError):
            return None
        return pid if _birth(pid) == born else None

    def start(self) -> None:
        """Start the process, unless it runs, and wait until it is ready."""
        if not self.pid:
            self._spawn()
        deadline = time.monotonic() + _PATIENCE
        while not self.ready():
            if not self.pid or time.monotonic() > deadline:
                raise LabError(f"{self.name} did not start; {self.log} ends:\n{self._tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Terminate the process; kill it if it does not end."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            pid = self.pid
            if pid:
                os.kill(pid, number)
                _wait(lambda: not self.pid)
        self._pidfile.unlink(missing_ok=True)

    @property
    def _pidfile(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                cwd=self.cwd,
                start_new_session=True,
            )
        write(self._pidfile, f"{process.pid} {_birth(process.pid)}\n")

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL:])


def _birth(pid: int) -> int | None:
    """Return the start time of a process in clock ticks; None if it has ended or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
