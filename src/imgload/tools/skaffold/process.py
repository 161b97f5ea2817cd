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
    """Run a program like `running`, with nothing meanwhile."""
    with running(argv, folder, environ):
        pass


def run_and_read(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Run a program like `run`, and also return its stdout."""
    output = bytearray()
    with running(argv, None, environ, subprocess.PIPE) as process:
        while process.stdout and (chunk := os.read(process.stdout.fileno(), 1 << 16)):
            os.write(1, chunk)
            output += chunk
    return output.decode(errors="replace")


def read(argv: Sequence[str]) -> str:
    """Return the stdout of a program without showing it; empty if the program fails."""
    null = subprocess.DEVNULL
    with suppress(OSError, subprocess.SubprocessError):
        output = subprocess.check_output(argv, stdin=null, stderr=null, timeout=_TIMEOUT_SECONDS)  # noqa: S603
        return output.decode(errors="replace")
    return ""


@contextmanager
def running(
    argv: Sequence[str],
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program during the block, and wait for its end; any exception ends its process group.

    No shell parses the arguments. `environ` is added to this process's environment; the output
    goes to this process's stdout and stderr. Raises UsageError when there is no such program, and
    BuildFailed when its exit status is not 0.
    """
    process = None
    try:
        with _deferred_signals():
            process = _start(argv, folder, environ, stdout)
        yield process
        _wait(process, argv)
    except BaseException:
        if process:
            _stop(process)
        raise
    finally:
        if process and process.stdout:
            process.stdout.close()


def _start(
    argv: Sequence[str], folder: Path | None, environ: Mapping[str, str] | None, stdout: int | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - the user's command
            argv,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            process_group=0,
        )
    except OSError as error:
        program = shlex.quote(argv[0])
        raise UsageError(
            f"cannot run {argv[0]!r}: {error.strerror or error}",
            hint=f"check that it is installed, executable and on PATH: command -v {program}",
        ) from error


def _wait(process: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
    if status := process.wait():
        result = f"exit status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
        message = f"{' '.join(argv[:2])} failed with {result}"
        raise BuildFailed(message, hint="its own messages stand above")


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM while a child starts: until Popen returns, nothing can stop it."""
    pending: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main_thread else ()
    handlers = {n: signal.signal(n, lambda number, _: pending.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if pending:
            signal.raise_signal(pending[0])


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
