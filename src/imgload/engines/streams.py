"""What the two backends' streams have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import requests

from imgload.engines.base import CHUNK, Endpoint
from imgload.engines.trouble import translated
from imgload.errors import EngineFailed

_SETTLE_SECONDS = 10.0


def body_chunks(response: requests.Response, endpoint: Endpoint) -> Iterator[bytes]:
    """Yield a response's body in chunks; a cut stream raises EngineFailed."""
    with translated(endpoint, "reading the saved image"):
        yield from response.iter_content(CHUNK)


def exit_status(inspect: Callable[[], dict[str, Any]], complete: bool) -> int:  # noqa: FBT001
    """Return a command's exit status, once the engine says that it ended.

    Args:
        inspect: asks the engine about the exec.
        complete: whether all its input was sent: exit status 0 is not believed otherwise, since
            a dropped connection looks to the command like the end of its input.

    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (state := inspect()).get("Running") and time.monotonic() < deadline:
        time.sleep(0.01)
    status = state.get("ExitCode")
    if state.get("Running") or not isinstance(status, int):
        raise EngineFailed("the connection to a command broke while it was running")
    if status == 0 and not complete:
        raise EngineFailed("the connection to a command broke before all was sent")
    return status
