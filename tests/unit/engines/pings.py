"""A socket on which pings, and the question who is there, are answered as an engine does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.answering import answering

PODMAN = {"Libpod-Api-Version": "4.3.1", "Api-Version": "1.41"}
DOCKER = {"Api-Version": "1.41", "Server": "Docker/20.10"}


@contextmanager
def engine(path: Path, headers: dict[str, str], info: object = None) -> Iterator[str]:
    """Answer on a socket.

    Args:
        path: of the socket.
        headers: of every answer.
        info: the document that ``/info`` is; None for the socket's own path.

    """
    own = {"ID": str(path), "store": {"graphRoot": str(path)}}

    with answering(path, lambda _: (200, headers, own if info is None else info)) as url:
        yield url
