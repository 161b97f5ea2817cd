"""HTTP to an engine by a client of its SDK, which the caller has."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from imgload.core.errors import EngineFailed, UsageError
from imgload.engines.discovery.candidates import Candidate
from imgload.engines.discovery.probe import identified, probe
from imgload.engines.endpoint import Endpoint, EngineKind, Tls
from imgload.engines.http import Answer, Request, Wire, map_errors


class SdkWire(Wire):
    """The session of a client; it is the caller's, so `close` leaves it open."""

    def __init__(self, endpoint: Endpoint, session: Any) -> None:
        self.endpoint, self._session = endpoint, session
        base = session.base_url  # podman-py has parsed it
        self._root = base if isinstance(base, str) else f"http://{base.netloc}"

    def send(self, request: Request) -> Answer:
        response = self._session.request(
            request.method,
            f"{self._root}{request.path}",
            params=request.params,
            data=request.body,
            headers={"Accept-Encoding": "identity", **request.headers, **request.content_type},
            timeout=request.seconds,
            verify=self._session.verify or False,  # not the environment's CA bundle
            stream=True,
            allow_redirects=False,
        )
        asked = f"{request.method} {request.path}"
        return Answer(response, response.raw._fp, asked)  # noqa: SLF001 - of http.client

    def close(self) -> None:
        pass


def open_client(client: Any, kind: EngineKind) -> Wire:
    """Return a connection by an SDK's client; UsageError for any other object, or EngineError.

    For ``ssh://`` it is a tunnel to the same address: the connections of both SDKs are pipes then,
    whose directions cannot be closed one by one.
    """
    session = _session(client, kind)
    if session is None:
        accepted = "docker.DockerClient or APIClient" if kind == "docker" else "podman.PodmanClient"
        raise UsageError(
            f"{kind.capitalize()} accepts the client of its SDK, not {type(client).__name__}",
            hint=f"pass a {accepted}, or nothing to have an engine discovered",
        )
    candidate = (_docker_address if kind == "docker" else _podman_address)(session)
    wire: Wire
    if candidate.url.startswith("ssh://"):
        wire = Wire(probe(candidate))
    else:
        wire = SdkWire(Endpoint(kind, candidate.url, candidate.origin, tls=candidate.tls), session)
        with map_errors(wire.endpoint, "connecting"), wire.send(Request("GET", "/_ping")) as answer:
            wire.endpoint = identified(wire.endpoint, answer.headers)
    if wire.endpoint.kind != kind:
        wire.close()
        raise EngineFailed(f"the engine at {candidate.url} is not {kind}")
    if kind == "docker":
        wire.endpoint = attrs.evolve(wire.endpoint, version=session.api_version)
    return wire


def _session(client: Any, kind: EngineKind) -> Any:
    if kind == "docker":
        from docker import APIClient, DockerClient  # noqa: PLC0415 - start-up

        session = client.api if isinstance(client, DockerClient) else client
        return session if isinstance(session, APIClient) else None
    from podman import PodmanClient  # noqa: PLC0415 - start-up

    return client.api if isinstance(client, PodmanClient) else None


def _docker_address(session: Any) -> Candidate:
    adapter = getattr(session, "_custom_adapter", None)
    scheme, netloc = urlsplit(session.base_url)[:2]
    url, tls = f"tcp://{netloc}", None
    if path := getattr(adapter, "socket_path", ""):
        url = f"unix://{path}"
    elif host := getattr(adapter, "ssh_host", ""):
        url = f"ssh://{host}"
    elif scheme == "https":
        files = session.cert if isinstance(session.cert, tuple) else (session.cert, session.cert)
        cert, key = (Path(file) if file else None for file in files)
        ca = Path(session.verify) if isinstance(session.verify, str) else None
        tls = Tls(ca, cert, key, verify=bool(session.verify))
    return Candidate("docker", url, "the caller's client", tls=tls)


def _podman_address(session: Any) -> Candidate:
    base, url, identity = session.base_url, f"tcp://{session.base_url.netloc}", ""
    if base.scheme == "http+unix":
        url = f"unix://{unquote(base.netloc)}"
    elif base.scheme == "http+ssh":
        url = f"ssh://{base.netloc}{base.path}"
        identity = session.adapters["http://"]._pool_kwargs.get("identity", "")  # noqa: SLF001
    return Candidate("podman", url, "the caller's client", identity=identity)
