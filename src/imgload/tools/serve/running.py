"""The note of a running `imgload serve`, which other commands read; at most one runs per user.

The process keeps the file locked, and the kernel releases the lock however the process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from imgload.core.errors import ImgloadError, UsageError
from imgload.core.state import lock, private_folder, state_folder

_MAX_BYTES = 64 << 10
_STOP_SECONDS = 60.0
_PAUSE = 0.1


@attrs.frozen
class Running:
    """A running `imgload serve`, with its options."""

    pid: int
    patterns: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    source: str | None = None
    pulled: bool = False

    @property
    def describe(self) -> str:
        """The served names, for messages."""
        names = ", ".join(self.patterns) or "every image"
        return names if self.pulled else f"{names}, unless it was pulled from its registry"


def _path() -> Path:
    return state_folder() / "serve" / "running.json"


@contextlib.contextmanager
def claim(about: Running) -> Iterator[None]:
    """Note that this process serves; UsageError if another one does."""
    path = _path()
    try:
        private_folder(path.parent)
        file = path.open("a+")
    except OSError as error:
        raise ImgloadError(f"cannot write {path}: {error.strerror}") from error
    with file:
        try:
            lock(file)  # type: ignore[arg-type]
        except OSError as error:
            raise UsageError(
                "imgload serve already runs for this user; it can serve several clusters",
                hint="imgload serve --stop",
            ) from error
        file.truncate(0)
        file.write(json.dumps(attrs.asdict(about)))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def find_running() -> Running | None:
    """Return the running `imgload serve` of this user, or None."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError), _path().open("rb") as file:
        try:
            lock(file)
        except BlockingIOError:
            about = json.loads(file.read(_MAX_BYTES))
            lists = {key: tuple(map(str, about.pop(key))) for key in ("patterns", "clusters")}
            return Running(**{**about, **lists})
    return None


def stop_running() -> bool:
    """End the running `imgload serve`, and wait for its end; return False if none runs."""
    running = find_running()
    if running is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while find_running():
        if time.monotonic() > deadline:
            message = f"imgload serve (process {running.pid}) does not end"
            raise ImgloadError(message, hint="kill it with SIGKILL, then: imgload serve --stop")
        time.sleep(_PAUSE)
    return True
