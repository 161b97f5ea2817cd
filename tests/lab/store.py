"""A client of containerd over gRPC, which is much faster than an exec."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import grpc

from tests.lab.protobuf import Message, field, flag

_COMMITTED = 3
_TIMEOUT = 60.0


@attrs.frozen
class Store:
    """One namespace of containerd; Kubernetes' namespace is at CRI's socket."""

    socket: Path
    namespace: str = "k8s.io"

    def records(self) -> set[str]:
        """Return the names of all image records."""
        [answer] = self._call("images.v1.Images/List", b"")
        return {image.text(1) for image in answer.messages(1)}

    def remove(self, names: Sequence[str]) -> None:
        """Remove records, and with the last one all unreferenced content."""
        for name in names:
            last = flag(2) if name == names[-1] else b""
            self._call("images.v1.Images/Delete", field(1, name) + last)

    def snapshots(self, snapshotter: str = "overlayfs") -> set[str]:
        """Return the keys of all committed snapshots."""
        answers = self._call("snapshots.v1.Snapshots/List", field(1, snapshotter), stream=True)
        infos = [info for answer in answers for info in answer.messages(1)]
        return {info.text(1) for info in infos if info.integer(3) == _COMMITTED}

    def labels(self) -> list[tuple[str, str]]:
        """Return all labels of all blobs with their values."""
        answers = self._call("content.v1.Content/List", b"", stream=True)
        infos = [info for answer in answers for info in answer.messages(1)]
        return [(entry.text(1), entry.text(2)) for info in infos for entry in info.messages(5)]

    def _call(self, method: str, request: bytes, *, stream: bool = False) -> list[Message]:
        metadata = [("containerd-namespace", self.namespace)]
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix://{self.socket}", options=options) as channel:
            kind: Callable[..., Any] = channel.unary_stream if stream else channel.unary_unary
            call = kind(f"/containerd.services.{method}")
            answer = call(request, timeout=_TIMEOUT, metadata=metadata)
            return [Message(raw) for raw in (answer if stream else [answer])]
