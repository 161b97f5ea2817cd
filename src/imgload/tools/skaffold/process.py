"""Running a build as a child process, and stopping it with all that it started."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from imgload.core.errors import ArchiveInvalid, BuildFailed, UsageError
from imgload.core.state import TemporaryFolder
from imgload.oci.digest import Digest

_GRACE_SECONDS = 0.8
"""Skaffold kills its builder two seconds after SIGINT: by then the child must be gone."""
_POLL_SECONDS = 0.02
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_ASIDE_SECONDS = 10.0


def run(
    argv: Sequence[str], folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> None:
    """Run a program to its end; its output goes where this process's goes.

    Args:
        argv: the program and its arguments; no shell reads them.
        folder: where to run it; None for here.
        environ: variables beside those of this process.

    Raises:
        BuildFailed: when its exit status is not 0.
        UsageError: when there is no such program.

    """
    with started(argv, folder, environ) as child:
        child.finish()


def run_and_read(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Run a program as `run` does, and return what it wrote to stdout, too."""
    said = bytearray()
    with started(argv, None, environ, subprocess.PIPE) as child:
        assert child.process.stdout  # noqa: S101 - it was asked for
        while piece := os.read(child.process.stdout.fileno(), 1 << 16):
            os.write(1, piece)
            said += piece
        child.finish()
    return said.decode(errors="replace")


def read(argv: Sequence[str]) -> str:
    """Run a program aside, shown to nobody, and return its output; nothing when it fails."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603 - found on PATH
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASIDE_SECONDS, check=False
        )
        return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
    return ""


@attrs.frozen
class Child:
    """A program that runs."""

    argv: Sequence[str]
    process: subprocess.Popen[bytes]

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            BuildFailed: when its exit status is not 0.

        """
        _require_success(self.argv, self.process.wait())


@contextmanager
def started(
    argv: Sequence[str],
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> Iterator[Child]:
    """Start a program as `run` does, in a process group of its own.

    Whatever is raised within ends the whole group.
    """
    signals = _HeldBack()
    try:
        process = subprocess.Popen(  # noqa: S603 - what the user asked to be run
            argv,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            process_group=0,
        )
    except OSError as error:
        signals.release()
        raise UsageError(
            f"cannot run {argv[0]!r}: {error.strerror or error}",
            hint="is it installed, executable, and on PATH? try: command -v "
            + shlex.quote(argv[0]),
        ) from error
    try:
        signals.release()
        yield Child(argv, process)
    except BaseException:
        _stop(process)
        raise
    finally:
        if process.stdout:
            process.stdout.close()


class _HeldBack:
    """SIGINT and SIGTERM until they are released: what is not known yet cannot be stopped."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._handlers = {number: self._hold(number) for number in _STOPPING if _in_main_thread()}

    def _hold(self, number: int) -> Any:
        return signal.signal(number, lambda number, _frame: self._came.append(number))

    def release(self) -> None:
        """Give the signals back to whom they belong, with the first that came meanwhile."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if self._came:
            signal.raise_signal(self._came[0])


def _in_main_thread() -> bool:
    """Whether signals can be handled here at all."""
    return threading.current_thread() is threading.main_thread()


def _require_success(argv: Sequence[str], status: int) -> None:
    if status == 0:
        return
    command = " ".join(argv[:2])
    how = f"exit status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
    raise BuildFailed(f"{command} failed with {how}", hint="its own messages stand above")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to the whole group, as Ctrl-C would, and SIGKILL to what is left of it."""
    deadline = time.monotonic() + _GRACE_SECONDS
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGINT)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(_POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Yield the path of an empty file that a child may write, and that is gone afterwards."""
    folder = TemporaryFolder.make()
    try:
        path = folder.path / name
        path.touch()
        yield path
    finally:
        folder.remove()


def digest_in(text: str) -> Digest | None:
    """Return the digest or image ID that a child wrote, or None."""
    with suppress(ArchiveInvalid):
        return Digest.from_engine_id(text.strip())
    return None
