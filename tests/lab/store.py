"""What a containerd keeps, asked over gRPC: an exec costs far more."""

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
    """What clients see of one namespace; Kubernetes' is at the socket where CRI is, too."""

    socket: Path
    namespace: str = "k8s.io"

    def records(self) -> set[str]:
        """The names of all image records."""
        [answer] = self._call("images.v1.Images/List", b"")
        return {image.text(1) for image in answer.messages(1)}

    def remove(self, names: Sequence[str]) -> None:
        """Remove records, and with the last one all content that nothing leads to."""
        for name in names:
            last = flag(2) if name == names[-1] else b""
            self._call("images.v1.Images/Delete", field(1, name) + last)

    def snapshots(self, snapshotter: str = "overlayfs") -> set[str]:
        """The keys of all committed snapshots."""
        answers = self._call("snapshots.v1.Snapshots/List", field(1, snapshotter), stream=True)
        found = [info for answer in answers for info in answer.messages(1)]
        return {info.text(1) for info in found if info.integer(3) == _COMMITTED}

    def labels(self) -> list[tuple[str, str]]:
        """All labels of all blobs, each with its value."""
        answers = self._call("content.v1.Content/List", b"", stream=True)
        found = [info for answer in answers for info in answer.messages(1)]
        return [(entry.text(1), entry.text(2)) for info in found for entry in info.messages(5)]

    def _call(self, method: str, request: bytes, *, stream: bool = False) -> list[Message]:
        metadata = [("containerd-namespace", self.namespace)]
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix://{self.socket}", options=options) as channel:
            kind: Callable[..., Any] = channel.unary_stream if stream else channel.unary_unary
            call = kind(f"/containerd.services.{method}")
            answer = call(request, timeout=_TIMEOUT, metadata=metadata)
            return [Message(each) for each in (answer if stream else [answer])]
