"""Run a build as a child process, and stop it with all processes that it started."""

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

import attrs

from imgload.core.errors import ArchiveInvalid, BuildFailed, UsageError
from imgload.core.state import TemporaryFolder
from imgload.oci.digest import Digest

_GRACE_SECONDS = 0.8
"""Skaffold kills its builder two seconds after SIGINT; the child must have ended by then."""
_POLL_SECONDS = 0.02
_TIMEOUT_SECONDS = 10.0


def run(
    argv: Sequence[str], folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> None:
    """Run a program to its end; its output goes to this process's stdout and stderr.

    No shell parses the arguments. `environ` is added to this process's environment. Raises
    UsageError when there is no such program, and BuildFailed when its exit status is not 0.
    """
    with started(argv, folder, environ) as child:
        child.finish()


def run_and_read(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Run a program like `run`, and also return its stdout."""
    output = bytearray()
    with started(argv, None, environ, subprocess.PIPE) as child:
        assert child.process.stdout  # noqa: S101 - a pipe, see above
        while chunk := os.read(child.process.stdout.fileno(), 1 << 16):
            os.write(1, chunk)
            output += chunk
        child.finish()
    return output.decode(errors="replace")


def read(argv: Sequence[str]) -> str:
    """Return the stdout of a program without showing it; empty if the program fails."""
    with suppress(OSError, subprocess.SubprocessError):
        output = subprocess.check_output(  # noqa: S603 - found on PATH
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
        )
        return output.decode(errors="replace")
    return ""


@attrs.frozen
class Child:
    """A running program."""

    argv: Sequence[str]
    process: subprocess.Popen[bytes]

    def finish(self) -> None:
        """Wait for its end; BuildFailed if its exit status is not 0."""
        if status := self.process.wait():
            name = (
                f"exit status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
            )
            message = f"{' '.join(self.argv[:2])} failed with {name}"
            raise BuildFailed(message, hint="its own messages stand above")


@contextmanager
def started(
    argv: Sequence[str],
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> Iterator[Child]:
    """Start a program like `run`, in its own process group; any exception ends the whole group."""
    signals = _DeferredSignals()
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's command
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
            hint="check that it is installed, executable and on PATH: command -v "
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


class _DeferredSignals:
    """Defers SIGINT and SIGTERM while a child starts: until Popen returns, nothing can stop it."""

    def __init__(self) -> None:
        self._pending: list[int] = []
        in_main_thread = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if in_main_thread else ()
        self._handlers = {number: signal.signal(number, self._defer) for number in numbers}

    def _defer(self, number: int, _frame: object) -> None:
        self._pending.append(number)

    def release(self) -> None:
        """Restore the handlers, and raise the first deferred signal."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if self._pending:
            signal.raise_signal(self._pending[0])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to the process group, like Ctrl-C, and SIGKILL if some process remains."""
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
def temporary_file(name: str) -> Iterator[Path]:
    """Yield the path of an empty file for a child to write to, and remove it afterwards."""
    folder = TemporaryFolder.make()
    try:
        path = folder.path / name
        path.touch()
        yield path
    finally:
        folder.remove()


def parse_digest(text: str) -> Digest | None:
    """Return the digest or image ID in a child's output, or None."""
    with suppress(ArchiveInvalid):
        return Digest.from_engine_id(text.strip())
    return None
