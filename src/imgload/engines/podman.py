"""Podman, through its SDK for connection and listing, and the SDK's session for streams."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import podman.errors
import requests
from podman import PodmanClient

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
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class PodmanEngine(Engine):
    """A Podman API service, rootful or rootless."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        with translated(endpoint, "connecting"):
            self._client = PodmanClient(base_url=endpoint.url, timeout=CONTROL_SECONDS)

    def find(self, name: str) -> EngineImage | None:
        with translated(self.endpoint, f"inspecting the image {name}"):
            try:
                found = self._client.images.get(name).attrs
            except podman.errors.ImageNotFound:
                return None
        image_id = Digest.from_engine_id(found["Id"])
        return EngineImage(
            target=image_id,
            image_id=image_id,
            names=tuple(found.get("RepoTags") or ()),
            platform=Platform.of(
                found.get("Os") or "linux",
                found.get("Architecture") or "",
                found.get("Variant") or "",
            ),
            diff_ids=tuple(map(Digest.parse, (found.get("RootFS") or {}).get("Layers") or ())),
            size=int(found.get("Size") or 0),
        )

    @contextmanager
    def save(self, images: Sequence[str], platform: Platform | None) -> Iterator[Iterator[bytes]]:
        del platform  # an image in Podman's store has one platform
        doing = f"saving {', '.join(images)}"
        params = {"format": ["docker-archive"], "references": list(images)}
        with translated(self.endpoint, doing):
            response = self._request(
                "GET", "/images/export", doing, params=params, stream=True, timeout=STREAM_SECONDS
            )
        with response:
            yield body_chunks(response, self.endpoint)

    def push(self, image: Digest, repository: str) -> None:
        doing = f"pushing {image.short}"
        path = f"/images/{image.hex}/push"
        params = {"destination": f"{repository}:latest", "tlsVerify": "false", "quiet": "false"}
        with translated(self.endpoint, doing):
            response = self._request(
                "POST", path, doing, params=params, stream=True, timeout=STREAM_SECONDS
            )
            with response:
                for line in response.iter_lines():
                    _refuse_error_event(line, self.endpoint)

    def layer_sizes(self, image: Digest) -> list[int]:
        with translated(self.endpoint, "reading an image's history"):
            path = f"/images/{image.hex}/history"
            steps = self._request("GET", path, "history", timeout=CONTROL_SECONDS).json()
        return [int(step["Size"]) for step in reversed(steps) if step.get("Size")]

    def containers(self, label: str) -> list[Container]:
        with translated(self.endpoint, "listing containers"):
            response = self._request(
                "GET",
                "/containers/json",
                "listing containers",
                params={"all": "true", "filters": json.dumps({"label": [label]})},
                timeout=CONTROL_SECONDS,
            )
        return [
            Container(c["Id"], c["Names"][0], c["State"], c.get("Labels") or {})
            for c in response.json()
        ]

    def container(self, name: str) -> Container | None:
        with translated(self.endpoint, f"inspecting the container {name}"):
            try:
                found = self._client.containers.get(name).attrs
            except podman.errors.NotFound:
                return None
        labels = (found.get("Config") or {}).get("Labels") or {}
        return Container(found["Id"], found["Name"], found["State"]["Status"], labels)

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        with translated(self.endpoint, f"running {argv[0]} in {container[:12]}"):
            exec_id = self._create_exec(container, argv, stdin is not None)
            attached = self._start(exec_id)
            try:
                complete = attached.communicate(stdin)
            finally:
                attached.close()
            status = exit_status(lambda: self._inspect_exec(exec_id), complete)
        return ExecResult(status, bytes(attached.stdout), bytes(attached.stderr))

    def _create_exec(self, container: str, argv: Sequence[str], stdin: bool) -> str:  # noqa: FBT001
        spec = {
            "Cmd": list(argv),
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": False,
        }
        response = self._request(
            "POST",
            f"/containers/{container}/exec",
            f"running {argv[0]}",
            data=json.dumps(spec),
            timeout=CONTROL_SECONDS,
        )
        return str(response.json()["Id"])

    def _start(self, exec_id: str) -> Attached:
        response = self._request(
            "POST",
            f"/exec/{exec_id}/start",
            "starting a command",
            data=json.dumps({"Detach": False, "Tty": False}),
            headers=_UPGRADE,
            stream=True,
            timeout=None,
        )
        return Attached.take_over(response)

    def _inspect_exec(self, exec_id: str) -> dict[str, Any]:
        response = self._request(
            "GET", f"/exec/{exec_id}/json", "inspecting a command", timeout=CONTROL_SECONDS
        )
        found: dict[str, Any] = response.json()
        return found

    def put(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        doing = f"copying into {container[:12]}"
        with translated(self.endpoint, doing):
            self._request(
                "PUT",
                f"/containers/{container}/archive",
                doing,
                params={"path": folder},
                data=(bytes(chunk) for chunk in archive),
                timeout=STREAM_SECONDS,
            )

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def _request(self, method: str, path: str, doing: str, **options: Any) -> requests.Response:
        api = self._client.api
        url = f"http://{api.base_url.netloc}{api.path_prefix}{quote(path.lstrip('/'))}"
        response = api.request(method, url, **options)
        refuse_bad_answer(response, self.endpoint, doing)
        return response


def _refuse_error_event(line: bytes, endpoint: Endpoint) -> None:
    event = json.loads(line) if line.startswith(b"{") else {}
    if event.get("error"):
        raise EngineFailed(f"{endpoint}: pushing failed: {event['error']}")
