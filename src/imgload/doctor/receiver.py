"""Whether an engine can push to this process: only then does no more move than what is missing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial

from imgload.doctor.finding import Finding
from imgload.engines.base import Endpoint, Engine
from imgload.errors import EngineError, EngineFailed, ImgloadError
from imgload.memory import Memory
from imgload.parallel import Task
from imgload.state import state_folder

SECONDS = 3.0
_LONGEST = 64 << 10
_NO_IMAGE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""Well-formed, so that a client which began with TLS gives up at once."""


def reaches_us(engine: Engine) -> bool:
    """Whether the engine can connect to a port of ours, which it is sent to for an image.

    Raises:
        EngineFailed: when it takes too long to try.

    """
    heard = threading.Event()
    with _listening(heard) as address:
        task = Task(partial(_pull, engine, f"{address}/imgload/reachable"))
        task.settle(SECONDS)
    if not heard.is_set() and not task.done:
        raise EngineFailed(f"{engine.endpoint} takes too long to look for an image in a registry")
    return heard.is_set()


def _pull(engine: Engine, repository: str) -> None:
    with contextlib.suppress(EngineError):
        engine.try_pull(repository)


@contextlib.contextmanager
def _listening(heard: threading.Event) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, heard), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, heard: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            heard.set()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(SECONDS)
                connection.recv(_LONGEST)
                connection.sendall(_NO_IMAGE)


def check_receiver(endpoint: Endpoint, *, reached: bool | ImgloadError) -> Iterator[Finding]:
    """Yield what it means for an engine, and what an earlier failure does.

    Args:
        endpoint: the engine.
        reached: what came of `reaches_us`.

    """
    if isinstance(reached, ImgloadError):
        yield Finding.of("receiver", reached, "info")
        return
    if not reached:
        what = f"{endpoint} cannot reach this process (does it run in a VM?)"
        yield Finding("receiver", "info", f"{what}: its images are saved whole, which takes longer")
        return
    yield Finding("receiver", "ok", f"{endpoint} can push here: only what is missing moves")
    if Memory.load().is_cut_off(endpoint.url):
        what = f"{endpoint} could not push here within the last day, so that images are saved whole"
        yield Finding("receiver", "info", what, f"to forget that: rm {state_folder()}/engines.json")
