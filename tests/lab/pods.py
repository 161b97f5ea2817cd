"""Pods that are created over CRI, as by the kubelet, on the node's network."""

import io
import secrets
import tarfile
import time

import attrs

from tests.lab.cluster import Node
from tests.lab.engine import Engine
from tests.lab.protobuf import field, flag, number
from tests.lab.shell import LabError

PAUSE = "registry.k8s.io/pause:3.10"
"""The sandbox image in the nodes' configuration."""
_ENTRYPOINT = 'ENTRYPOINT ["/bin/busybox", "sleep", "100000"]'
_PATIENCE = 30.0
_PAUSE = 0.1
_MOUNTED = "/imgload-lab-program"
_NODE_NAMESPACES = number(1, 2) + number(2, 2) + number(3, 2)
"""NamespaceMode NODE for network, processes and IPC, because the lab has no CNI."""


def runnable(engine: Engine, node: Node, tag: str) -> str:
    """Create an image that sleeps when it runs, also as a base for others."""
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
    """A pod's sandbox, and its containers."""

    node: Node
    id: str
    config: bytes

    @classmethod
    def run(cls, node: Node) -> "Pod":
        """Start a sandbox; import its image if the node lacks it."""
        if node.cri().image_status(PAUSE) is None:
            runnable(node.engine, node, PAUSE)
            node.ctr("images", "import", "-", stdin=node.engine.raw("save", PAUSE))
        metadata = field(1, "pod") + field(2, secrets.token_hex(8)) + field(3, "default")
        linux = field(2, field(1, _NODE_NAMESPACES))
        config = field(1, metadata) + field(3, "/var/log/pods") + field(8, linux)
        answer = node.cri().call("RuntimeService/RunPodSandbox", field(1, config))
        return cls(node, answer.text(1), config)

    def create(self, image: str, program: str = "") -> str:
        """Create a container from an image without starting it; return its ID.

        With the path of the node's busybox as `program`, it runs that, and ends immediately: an
        image may have no program.
        """
        metadata = field(1, secrets.token_hex(8))
        container = field(1, metadata) + field(2, field(1, image))
        if program:
            container += field(3, _MOUNTED) + field(3, "true")
            container += field(7, field(1, _MOUNTED) + field(2, program) + flag(3))
        request = field(1, self.id) + field(2, container) + field(3, self.config)
        return self.node.cri().call("RuntimeService/CreateContainer", request).text(1)

    def start(self, image: str, program: str = "") -> str:
        """Create and start a container; return its ID. The arguments are those of `create`."""
        container = self.create(image, program)
        self.node.cri().call("RuntimeService/StartContainer", field(1, container))
        return container

    def stop(self, container: str) -> None:
        """Stop a container immediately; it remains as exited."""
        self.node.cri().call("RuntimeService/StopContainer", field(1, container))

    def remove_container(self, container: str) -> None:
        """Wait until a container has ended, and remove it."""
        cri, deadline = self.node.cri(), time.monotonic() + _PATIENCE
        while (container, "CONTAINER_EXITED") not in (
            (found["id"], found["state"]) for found in cri.list_containers()
        ):
            if time.monotonic() > deadline:
                raise LabError(f"{self.node.name}: the container {container} does not end")
            time.sleep(_PAUSE)
        cri.call("RuntimeService/RemoveContainer", field(1, container))

    def remove(self) -> None:
        """Stop and remove the pod with its containers."""
        self.node.cri().call("RuntimeService/StopPodSandbox", field(1, self.id))
        self.node.cri().call("RuntimeService/RemovePodSandbox", field(1, self.id))
