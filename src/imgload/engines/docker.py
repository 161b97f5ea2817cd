"""Docker, through its SDK."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import docker.errors
from docker.api.client import APIClient

from imgload.engines.attached import Attached
from imgload.engines.base import (
    Chunk,
    Container,
    Endpoint,
    Engine,
    EngineImage,
    ExecResult,
)
from imgload.engines.streams import body_chunks, exit_status
from imgload.engines.trouble import refuse_bad_answer, translated
from imgload.errors import EngineFailed
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

CONTROL_SECONDS = 60
STREAM_SECONDS = 600
"""How long a stream may stay silent; Docker 20.10 spools a whole save before its first byte."""
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
_PLATFORM_SAVE = (1, 48)
_MANIFESTS = (1, 48)
_SNAPSHOTTER = "io.containerd.snapshotter.v1"


class DockerEngine(Engine):
    """A Docker daemon, with the graphdriver store or the containerd image store."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        with translated(endpoint, "connecting"):
            self._client = APIClient(base_url=endpoint.url, timeout=CONTROL_SECONDS)

    def find(self, name: str) -> EngineImage | None:
        with translated(self.endpoint, f"inspecting the image {name}"):
            response = self._client.get(
                self._url(f"/images/{quote(name, safe='/:@')}/json"),
                params={"manifests": "1"} if self._version >= _MANIFESTS else {},
                timeout=CONTROL_SECONDS,
            )
            if response.status_code == HTTPStatus.NOT_FOUND:
                return None
            refuse_bad_answer(response, self.endpoint, f"inspecting the image {name}")
            return self._image(response.json())

    @property
    def _version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self._client.api_version.split("."))

    def _image(self, found: dict[str, Any]) -> EngineImage:
        target = Digest.parse(found["Id"])
        return EngineImage(
            target=target,
            image_id=None if self._is_manifest_id(found) else target,
            names=tuple(found.get("RepoTags") or ()),
            platform=Platform.of(
                found.get("Os") or "linux",
                found.get("Architecture") or "",
                found.get("Variant") or "",
            ),
            diff_ids=tuple(map(Digest.parse, (found.get("RootFS") or {}).get("Layers") or ())),
            size=int(found.get("Size") or 0),
            manifests=dict(_manifests(found)),
        )

    def _is_manifest_id(self, found: dict[str, Any]) -> bool:
        """Whether ``Id`` is a manifest's digest: on the containerd image store.

        Docker 28 says it in the image (``Descriptor``); before, only the daemon's info does.
        ``overlay2`` is a graphdriver and no snapshotter.
        """
        if "Descriptor" in found:
            return True
        if (found.get("GraphDriver") or {}).get("Name") == "overlay2":
            return False
        status = self._client.info().get("DriverStatus") or []
        return any(_SNAPSHOTTER in str(value) for _, value in status)

    @contextmanager
    def save(self, images: Sequence[str], platform: Platform | None) -> Iterator[Iterator[bytes]]:
        params: dict[str, Any] = {"names": list(images)}
        if platform and self._version >= _PLATFORM_SAVE:
            params["platform"] = json.dumps(platform.to_json())
        with translated(self.endpoint, f"saving {', '.join(images)}"):
            response = self._client.get(
                self._url("/images/get"), params=params, stream=True, timeout=STREAM_SECONDS
            )
            refuse_bad_answer(response, self.endpoint, f"saving {', '.join(images)}")
        with response:
            yield body_chunks(response, self.endpoint)

    def push(self, image: Digest, repository: str) -> None:
        tag = secrets.token_hex(8)
        with translated(self.endpoint, "pushing"):
            self._client.tag(str(image), repository, tag)
            try:
                for event in self._client.push(repository, tag, stream=True, decode=True):
                    if "error" in event:
                        raise EngineFailed(f"{self.endpoint}: {event['error']}")
            finally:
                self._client.remove_image(f"{repository}:{tag}", noprune=True)

    def layer_sizes(self, image: Digest) -> list[int]:
        with translated(self.endpoint, "reading an image's history"):
            steps = self._client.history(str(image))  # type: ignore[no-untyped-call]
        return [int(step["Size"]) for step in reversed(steps) if step.get("Size")]

    def containers(self, label: str) -> list[Container]:
        with translated(self.endpoint, "listing containers"):
            found = self._client.containers(all=True, filters={"label": [label]})
        return [_container(c, c["Names"][0], c["State"]) for c in found if c.get("Names")]

    def container(self, name: str) -> Container | None:
        with translated(self.endpoint, f"inspecting the container {name}"):
            try:
                found = self._client.inspect_container(name)
            except docker.errors.NotFound:
                return None
        labels = found["Config"].get("Labels")
        return _container({**found, "Labels": labels}, found["Name"], found["State"]["Status"])

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        with translated(self.endpoint, f"running {argv[0]} in {container[:12]}"):
            created = self._client.exec_create(container, list(argv), stdin=stdin is not None)
            attached = self._start(created["Id"])
            try:
                complete = attached.communicate(stdin)
            finally:
                attached.close()
            status = exit_status(lambda: self._client.exec_inspect(created["Id"]), complete)
        return ExecResult(status, bytes(attached.stdout), bytes(attached.stderr))

    def _start(self, exec_id: str) -> Attached:
        response = self._client.post(
            self._url(f"/exec/{exec_id}/start"),
            json={"Detach": False, "Tty": False},
            headers=_UPGRADE,
            stream=True,
            timeout=None,
        )
        refuse_bad_answer(response, self.endpoint, "starting a command")
        return Attached.take_over(response)

    def put(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        with translated(self.endpoint, f"copying into {container[:12]}"):
            response = self._client.put(
                self._url(f"/containers/{container}/archive"),
                params={"path": folder},
                data=(bytes(chunk) for chunk in archive),
                timeout=STREAM_SECONDS,
            )
            refuse_bad_answer(response, self.endpoint, f"copying into {container[:12]}")

    def close(self) -> None:
        self._client.close()

    def _url(self, path: str) -> str:
        return f"{self._client.base_url}/v{self._client.api_version}{path}"


def _manifests(found: dict[str, Any]) -> Iterator[tuple[Platform, Digest]]:
    for entry in found.get("Manifests") or ():
        platform = Platform.from_json((entry.get("ImageData") or {}).get("Platform"))
        if entry.get("Available") and entry.get("Kind") == "image" and platform:
            yield platform, Digest.parse(entry["ID"])


def _container(found: dict[str, Any], name: str, state: str) -> Container:
    return Container(found["Id"], name.lstrip("/"), state, found.get("Labels") or {})
