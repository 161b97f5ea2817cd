"""The log of ``--verbose``: requests to engines, commands on nodes, and decisions, with times."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence

from imgload.core.errors import one_line

_SECRET = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
"""The secret paths of imgload's registries: ``secrets.token_hex(16)``; digests are longer."""
_PASSWORD = re.compile(r"(//[^/@:\s]*):[^/@\s]+@")
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_MAX_WORD, _MAX_COMMAND = 80, 300
_write: Callable[[str], None] | None = None
_start = 0.0


def enable(write: Callable[[str], None]) -> None:
    """Write each line of the log by a function, which several threads call."""
    global _write, _start
    _write, _start = write, time.monotonic()


def enabled() -> bool:
    """Whether there is a log, so that a line for it is worth its cost."""
    return _write is not None


def log(text: str, since: float | None = None) -> None:
    """Write a line without secrets; `since` is when the described action started (monotonic)."""
    if _write is None:
        return
    now = time.monotonic()
    took = f" ({(now - since) * 1000:.0f} ms)" if since is not None else ""
    _write(f"[{now - _start:7.3f}] {redact(one_line(text))}{took}")


def redact(text: str) -> str:
    """Replace secret paths and passwords in a text, and shorten digests."""
    return _DIGEST.sub(r"\1…", _PASSWORD.sub(r"\1:***@", _SECRET.sub("***", text)))


def command_text(argv: Sequence[str]) -> str:
    """Return a command on one line without secrets, with long words and scripts shortened."""
    is_script = list(argv[:2]) == ["sh", "-c"]
    words = [redact(word) for word in (argv[4:] if is_script and argv[4:] else argv)]
    shown = [
        "(script)" if "\n" in word else f"{word[:_MAX_WORD]}…" if len(word) > _MAX_WORD else word
        for word in words
    ]
    text = shlex.join(shown)
    return f"{text[:_MAX_COMMAND]}…" if len(text) > _MAX_COMMAND else text
