"""Pods, made over CRI as the kubelet makes them, on the node's own network."""

import io
import secrets
import tarfile

import attrs

from tests.lab.cluster import Node
from tests.lab.engine import Engine
from tests.lab.protobuf import field, number

PAUSE = "registry.k8s.io/pause:3.10"
"""What the nodes' configuration names as the image of a pod's own container."""
_ENTRYPOINT = 'ENTRYPOINT ["/bin/busybox", "sleep", "100000"]'
_OF_THE_NODE = number(1, 2) + number(2, 2) + number(3, 2)
"""NamespaceMode NODE for network, processes and IPC: there is no CNI here."""


def runnable(engine: Engine, node: Node, tag: str) -> str:
    """Make an image that sleeps when it is run; also a base for others."""
    busybox = (node.root / "bin/busybox").read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("bin/busybox")
        member.size, member.mode = len(busybox), 0o755
        archive.addfile(member, io.BytesIO(busybox))
    engine.cli("import", f"--change={_ENTRYPOINT}", "-", tag, stdin=buffer.getvalue())
    return tag


@attrs.frozen
class Pod:
    """A pod's sandbox, and the containers that are made in it."""

    node: Node
    id: str
    config: bytes

    @classmethod
    def run(cls, node: Node) -> "Pod":
        """Start a sandbox, whose image is brought where the node lacks it."""
        if node.cri().image_status(PAUSE) is None:
            runnable(node.engine, node, PAUSE)
            node.ctr("images", "import", "-", stdin=node.engine.raw("save", PAUSE))
        metadata = field(1, "pod") + field(2, secrets.token_hex(8)) + field(3, "default")
        linux = field(2, field(1, _OF_THE_NODE))
        config = field(1, metadata) + field(3, "/var/log/pods") + field(8, linux)
        answer = node.cri().call("RuntimeService/RunPodSandbox", field(1, config))
        return cls(node, answer.text(1), config)

    def create(self, image: str) -> str:
        """Make a container from an image, and do not start it; its ID."""
        metadata = field(1, secrets.token_hex(8))
        container = field(1, metadata) + field(2, field(1, image))
        request = field(1, self.id) + field(2, container) + field(3, self.config)
        return self.node.cri().call("RuntimeService/CreateContainer", request).text(1)

    def start(self, image: str) -> str:
        """Make a container from an image, and start it; its ID."""
        container = self.create(image)
        self.node.cri().call("RuntimeService/StartContainer", field(1, container))
        return container

    def stop(self, container: str) -> None:
        """Stop a container at once; it stays, as exited."""
        self.node.cri().call("RuntimeService/StopContainer", field(1, container))

    def remove(self) -> None:
        """Stop and remove the pod with its containers."""
        self.node.cri().call("RuntimeService/StopPodSandbox", field(1, self.id))
        self.node.cri().call("RuntimeService/RemovePodSandbox", field(1, self.id))
