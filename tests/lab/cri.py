"""A client of a node's CRI over gRPC, from outside the node and without crictl."""

import json
from pathlib import Path
from typing import Any

import attrs
import grpc

from tests.lab.protobuf import Message, field, flag
from tests.lab.shell import LabError

_SOCKETS = (
    "run/k3s/containerd/containerd.sock",
    "run/k0s/containerd.sock",
    "var/snap/microk8s/common/run/containerd.sock",
    "run/containerd/containerd.sock",
)
_TIMEOUT = 30.0
_PULL_TIMEOUT = 600.0
_STATES = tuple(f"CONTAINER_{state}" for state in ("CREATED", "RUNNING", "EXITED", "UNKNOWN"))


class CriError(LabError):
    """An error that CRI returned."""

    def __init__(self, code: str, details: str) -> None:
        """Keep the gRPC status."""
        self.code = code
        self.details = details
        super().__init__(f"rpc error: code = {code} desc = {details}")


@attrs.frozen
class Cri:
    """`runtime.v1.ImageService`, and a part of `RuntimeService`, with plain values."""

    socket: Path

    @classmethod
    def at(cls, pid: int) -> "Cri":
        """Return the CRI of the node whose init has this process ID."""
        return cls.under(Path(f"/proc/{pid}/root"))

    @classmethod
    def under(cls, root: Path) -> "Cri":
        """Return the CRI of the node with this root folder."""
        sockets = [root / name for name in _SOCKETS]
        return cls(next((path for path in sockets if path.exists()), sockets[-1]))

    def list_images(self) -> list[dict[str, Any]]:
        """Return all images that the kubelet sees."""
        answer = self.call("ImageService/ListImages", b"")
        return [_image(image) for image in answer.messages(1)]

    def image_status(self, name: str) -> dict[str, Any] | None:
        """Return `{"status": …, "info": …}` of an image; None if CRI does not have it."""
        answer = self.call("ImageService/ImageStatus", _named(name) + flag(2))
        images = answer.messages(1)
        if not images:
            return None
        info = answer.mapping(2).get("info", "{}")
        return {"info": json.loads(info), "status": _image(images[0])}

    def image_id(self, name: str) -> str | None:
        """Return CRI's image ID for a name; None if CRI does not have it."""
        status = self.image_status(name)
        return str(status["status"]["id"]) if status else None

    def pull_image(self, name: str) -> str:
        """Pull an image as the kubelet does; return CRI's ID for it."""
        answer = self.call("ImageService/PullImage", _named(name), timeout=_PULL_TIMEOUT)
        return answer.text(1)

    def remove_image(self, name: str) -> None:
        """Remove the image with all its names; do nothing if it does not exist."""
        self.call("ImageService/RemoveImage", _named(name))

    def runtime_status(self) -> dict[str, Any]:
        """Return the data that `crictl info` shows."""
        answer = self.call("RuntimeService/Status", flag(1))
        status = answer.messages(1)[0]
        shown = {"status": {"conditions": [_condition(c) for c in status.messages(1)]}}
        info = {key: _json(value) for key, value in answer.mapping(2).items()}
        return {**info, **_capabilities(answer), **shown}

    def list_containers(self) -> list[dict[str, Any]]:
        """Return all containers, running or not, except the sandboxes of pods."""
        answer = self.call("RuntimeService/ListContainers", b"")
        return [_container(container) for container in answer.messages(1)]

    def call(self, method: str, request: bytes, timeout: float = _TIMEOUT) -> Message:
        """Call a method; raise `CriError` if it fails."""
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix://{self.socket}", options=options) as channel:
            call = channel.unary_unary(f"/runtime.v1.{method}")
            try:
                return Message(call(request, timeout=timeout))
            except grpc.RpcError as error:
                raise CriError(_go_name(error.code()), error.details()) from error


def _named(name: str) -> bytes:
    return field(1, field(1, name))


def _image(image: Message) -> dict[str, Any]:
    shown = {
        "id": image.text(1),
        "repoTags": image.texts(2),
        "repoDigests": image.texts(3),
        "size": str(image.integer(4)),
        "username": image.text(6),
        "pinned": bool(image.integer(8)),
    }
    uid = [{"value": str(message.integer(1))} for message in image.messages(5)]
    return shown | ({"uid": uid[0]} if uid else {})


def _container(container: Message) -> dict[str, Any]:
    return {
        "id": container.text(1),
        "podSandboxId": container.text(2),
        "image": {"image": container.messages(4)[0].text(1), "annotations": {}},
        "imageRef": container.text(5),
        "state": _STATES[container.integer(6)],
        "createdAt": str(container.integer(7)),
        "imageId": container.text(10),
    }


def _condition(condition: Message) -> dict[str, Any]:
    return {
        "type": condition.text(1),
        "status": bool(condition.integer(2)),
        "reason": condition.text(3),
        "message": condition.text(4),
    }


def _capabilities(answer: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if answer.messages(3):
        names = [handler.text(1) for handler in answer.messages(3)]
        fields["runtimeHandlers"] = [{"name": name} if name else {} for name in names]
    for features in answer.messages(4):
        fields["features"] = {"supplemental_groups_policy": bool(features.integer(1))}
    return fields


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _go_name(code: grpc.StatusCode) -> str:
    """Return a status as Go prints it: `NotFound` for NOT_FOUND."""
    return "".join(word.capitalize() for word in code.name.split("_"))
