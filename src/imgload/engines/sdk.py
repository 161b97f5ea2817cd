"""HTTP to an engine through its SDK, for endpoints that a socket cannot reach: ``ssh://``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from imgload.core.errors import EngineFailed
from imgload.engines.discovery.config_files import text_at
from imgload.engines.endpoint import Endpoint
from imgload.engines.http import CONTROL_SECONDS, Answer, Request, Wire
from imgload.engines.ssh import open_tunnel


class SdkWire(Wire):
    """The session of an SDK, which handles the address and the API version."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._open = _docker if endpoint.kind == "docker" else _podman
        if endpoint.url.startswith("ssh://") and not endpoint.tunnel:
            endpoint = open_tunnel(endpoint)
        self._tunnel = endpoint.tunnel
        self._url = self._tunnel.open() if self._tunnel else endpoint.url
        self._session, self._root, self.version = self._open(self._url)
        self._lock = threading.Lock()

    def send(self, request: Request) -> Answer:
        session, root = self._current()
        content = {"Content-Type": "application/json"} if request.json is not None else {}
        response = session.request(
            request.method,
            f"{root}{request.path}",
            params=request.params,
            data=request.body,
            headers={"Accept-Encoding": "identity", **request.headers, **content},
            timeout=request.seconds,
            stream=True,
            allow_redirects=False,
        )
        return _SdkAnswer(response, response.raw._fp)  # noqa: SLF001 - of http.client

    def _current(self) -> tuple[Any, str]:
        """Return the session; open a new one if ssh was restarted."""
        with self._lock:
            url = self._tunnel.url if self._tunnel else self._url
            if url != self._url:
                old = self._session
                self._session, self._root, self.version = self._open(url)
                self._url = url
                old.close()
            return self._session, self._root

    def close(self) -> None:
        self._session.close()
        if self._tunnel:
            self._tunnel.close()


class _SdkAnswer(Answer):
    def lines(self) -> Iterator[bytes]:
        # Unlike http.client's `readline`, this raises if the connection breaks between chunks.
        yield from self._connection.iter_lines()


def _docker(url: str) -> tuple[Any, str, str]:
    from docker.api.client import APIClient  # noqa: PLC0415 - start-up

    client = APIClient(base_url=url, timeout=int(CONTROL_SECONDS))
    return client, client.base_url, client.api_version


def _podman(url: str) -> tuple[Any, str, str]:
    from podman import PodmanClient  # noqa: PLC0415 - start-up

    client = PodmanClient(base_url=url, timeout=int(CONTROL_SECONDS))
    version = text_at(client.version(), "ApiVersion")  # type: ignore[no-untyped-call]
    if not version:
        raise EngineFailed(f"podman at {url}: it does not report the version of its API")
    return client.api, f"http://{client.api.base_url.netloc}", version
