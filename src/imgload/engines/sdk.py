"""HTTP to an engine through its SDK: by a client of the caller's, or over an ssh tunnel."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from imgload.core.errors import EngineFailed, UsageError
from imgload.engines.endpoint import Endpoint, EngineKind, Tls
from imgload.engines.http import CONTROL_SECONDS, Answer, Request, Wire
from imgload.engines.ssh import open_tunnel

_ORIGIN = "the caller's client"


class SdkWire(Wire):
    """The session of a client: the caller's, which stays open, or one at the end of a tunnel."""

    def __init__(self, endpoint: Endpoint, session: Any = None) -> None:
        self._endpoint, self._is_own = endpoint, session is None
        if session is None and endpoint.url.startswith("ssh://") and not endpoint.tunnel:
            endpoint = open_tunnel(endpoint)
        self._tunnel = endpoint.tunnel
        self._url = self._tunnel.open() if self._tunnel else endpoint.url
        self._session = session or _new_session(endpoint.kind, self._url)
        self._lock = threading.Lock()
        self.version = self._ping()

    def _ping(self) -> str:
        """Return the version of the API; EngineFailed if another kind of engine answers."""
        kind = self._endpoint.kind
        with self.send(Request("GET", "/_ping")) as answer:
            libpod, version = map(answer.headers.get, ("Libpod-Api-Version", "Api-Version"))
        if bool(libpod) != (kind == "podman") or not (libpod or version):
            raise EngineFailed(f"the engine at {self._endpoint.url} is not {kind}")
        return str(libpod or self._endpoint.version or version)

    def send(self, request: Request) -> Answer:
        session = self._current()
        base: Any = session.base_url  # podman-py has parsed it
        root = base if isinstance(base, str) else f"http://{base.netloc}"
        content = {"Content-Type": "application/json"} if request.json is not None else {}
        response = session.request(
            request.method,
            f"{root}{request.path}",
            params=request.params,
            data=request.body,
            headers={"Accept-Encoding": "identity", **request.headers, **content},
            timeout=request.seconds,
            verify=session.verify or False,  # not the environment's CA bundle
            stream=True,
            allow_redirects=False,
        )
        return _SdkAnswer(response, response.raw._fp)  # noqa: SLF001 - of http.client

    def _current(self) -> Any:
        """Return the session; open a new one if ssh was restarted."""
        with self._lock:
            url = self._tunnel.url if self._tunnel else self._url
            if url != self._url:
                old = self._session
                self._session, self._url = _new_session(self._endpoint.kind, url), url
                old.close()
            return self._session

    def close(self) -> None:
        if self._is_own:
            self._session.close()
        if self._tunnel:
            self._tunnel.close()


class _SdkAnswer(Answer):
    def lines(self) -> Iterator[bytes]:
        # Unlike http.client's `readline`, this raises if the connection breaks between chunks.
        yield from self._connection.iter_lines()


def _new_session(kind: EngineKind, url: str) -> Any:
    if kind == "docker":
        from docker import APIClient  # noqa: PLC0415 - start-up

        # With a version it does not ask the engine: `_ping` does.
        return APIClient(base_url=url, timeout=int(CONTROL_SECONDS), version="1.41")
    from podman import PodmanClient  # noqa: PLC0415 - start-up

    return PodmanClient(base_url=url, timeout=int(CONTROL_SECONDS)).api


def open_client(client: Any, kind: EngineKind) -> tuple[Endpoint, Any]:
    """Return the endpoint of an SDK's client, and its session; UsageError for any other object.

    For ``ssh://`` the session is None, and the endpoint has a tunnel: the connections of both SDKs
    are pipes then, whose directions cannot be closed one by one.
    """
    url, tls, identity = "", None, ""
    if kind == "docker":
        from docker import APIClient, DockerClient  # noqa: PLC0415 - start-up

        session: Any = client.api if isinstance(client, DockerClient) else client
        if isinstance(session, APIClient):
            url, tls = _docker_address(session)
    else:
        from podman import PodmanClient  # noqa: PLC0415 - start-up

        if isinstance(client, PodmanClient):
            session = client.api
            url, identity = _podman_address(session)
    if not url:
        accepted = "docker.DockerClient or APIClient" if kind == "docker" else "podman.PodmanClient"
        raise UsageError(
            f"{kind.capitalize()} accepts the client of its SDK, not {type(client).__name__}",
            hint=f"pass a {accepted}, or nothing to have one discovered",
        )
    version = session.api_version if kind == "docker" else ""
    endpoint = Endpoint(kind, url, "the caller's client", version, tls)
    if not url.startswith("ssh://"):
        return endpoint, session
    try:
        return open_tunnel(endpoint, identity=identity), None
    except ValueError as error:
        raise UsageError(f"the client's address cannot be used: {url}: {error}") from error


def _docker_address(session: Any) -> tuple[str, Tls | None]:
    adapter = getattr(session, "_custom_adapter", None)
    if path := getattr(adapter, "socket_path", ""):
        return f"unix://{path}", None
    if host := getattr(adapter, "ssh_host", ""):
        return f"ssh://{host}", None
    scheme, netloc = urlsplit(session.base_url)[:2]
    if scheme != "https":
        return f"tcp://{netloc}", None
    files = session.cert if isinstance(session.cert, tuple) else (session.cert, session.cert)
    cert, key = (Path(file) if file else None for file in files)
    ca = Path(session.verify) if isinstance(session.verify, str) else None
    return f"tcp://{netloc}", Tls(ca, cert, key, verify=bool(session.verify))


def _podman_address(session: Any) -> tuple[str, str]:
    """Return the address, and the key file for ssh."""
    base = session.base_url
    if base.scheme == "http+unix":
        return f"unix://{unquote(base.netloc)}", ""
    if base.scheme == "http+ssh":
        pool: dict[str, str] = session.adapters["http://"]._pool_kwargs  # noqa: SLF001
        return f"ssh://{base.netloc}{base.path}", pool.get("identity", "")
    return f"tcp://{base.netloc}", ""
