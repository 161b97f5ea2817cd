"""Detects the container runtime that the kubelet of a node uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

import attrs

from imgload.clusters.nodes.base import NodeRuntime, PreviousNames
from imgload.clusters.nodes.containerd import FIND, LOOK, parse_docker_store, parse_look
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import NamedImage, Survey, SurveyQuery
from imgload.core.errors import ImgloadError, NodeUnusable
from imgload.engines.base import Chunk, Container, ContainerHost
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

_ENDPOINTS = r"""
for process in $(grep -lx kubelet /proc/[0-9]*/comm 2>/dev/null); do
    process=${process%/comm}
    [ "$process/ns/mnt" -ef /proc/self/ns/mnt ] || continue
    echo "endpoint $(option container-runtime-endpoint)"
done
kubelet=/var/lib/kubelet
sed -n 's/.*--container-runtime-endpoint[= ]\([^" ]*\).*/endpoint \1/p' \
    $kubelet/kubeadm-flags.env 2>/dev/null
sed -n 's/^containerRuntimeEndpoint:/endpoint/p' $kubelet/instance-config.yaml \
    $kubelet/config.yaml 2>/dev/null
sed -n 's/^[[:space:]]*runtime-endpoint:/endpoint/p' /etc/crictl.yaml 2>/dev/null
"""
"""Prints the addresses of the runtime, the decisive one first: of the running kubelet, of the
kubelet's settings that kubeadm has written, and of crictl's."""
_DOCKER_INFO = """
case $endpoints in
*docker*) echo "docker $(docker info --format '{{json .}}' 2>/dev/null | head -c 65536)" ;;
esac
"""
_LOOK = (
    *("sh", "-c"),
    f"{FIND}endpoints=$({_ENDPOINTS})\nprintf '%s\\n' \"$endpoints\"{_DOCKER_INFO}{LOOK[-1]}",
)
_INFO = re.compile(r"^docker (\{.*)", re.MULTILINE)
_ENDPOINT = re.compile(
    r"^endpoint[ \t]+[\"']?((?:unix://)?/[\w/.@-]{1,200})", re.MULTILINE | re.ASCII
)


def _containerd(node: UnusableNode, look: str, address: str = "") -> NodeRuntime:
    return Node(node.name, node.engine, node.container, node.role, parse_look(look, address))


def _docker(node: UnusableNode, look: str) -> NodeRuntime:
    from imgload.clusters.nodes.docker import DockerNode  # noqa: PLC0415 - start-up
    from imgload.clusters.nodes.moby import MobyNode  # noqa: PLC0415

    about, endpoint = (node.name, node.engine, node.container, node.role), _url(look)
    info = _INFO.search(_listing(look))
    store = parse_docker_store(info[1], endpoint) if info else None
    return MobyNode(*about, store) if store else DockerNode(*about, endpoint)


def _crio(node: UnusableNode, look: str) -> NodeRuntime:
    from imgload.clusters.nodes.crio import CrioNode  # noqa: PLC0415 - start-up

    return CrioNode(node.name, node.engine, node.container, node.role, _url(look))


def _url(look: str) -> str:
    endpoint = endpoint_of(look)
    return endpoint if "://" in endpoint else f"unix://{endpoint}"


RUNTIMES: Mapping[str, Callable[[UnusableNode, str], NodeRuntime]] = {
    "containerd": _containerd,
    "docker": _docker,
    "crio": _crio,
}
"""Makes a node of each runtime from the output of `_LOOK`: the registration of all runtimes.

The key is `NodeRuntime.runtime_name`, and is found in the file name of the kubelet's endpoint, such
as ``cri-dockerd.sock`` and ``dockershim.sock``; the first is the default.
"""


def detect(
    name: str, engine: ContainerHost, container: Container, role: str = "", address: str = ""
) -> NodeRuntime:
    """Return a container as a node with the runtime that its kubelet uses.

    With `address`, that is the containerd whose socket has this path.

    minikube's Docker and k3s's run on a containerd whose images pods do not see. A node that does
    not run, or whose runtime is unknown, refuses every operation with the reason.
    """
    node = UnusableNode(name, engine, container, role)
    try:
        return node.detect(address)
    except ImgloadError as error:
        node.error = error
        return node


def endpoint_of(look: str) -> str:
    """Return the address of the runtime from the output of `_LOOK`; empty if none is set."""
    match = _ENDPOINT.search(_listing(look))
    return match[1] if match else ""


def _listing(look: str) -> str:
    """Return the lines before containerd's configuration."""
    return look.partition("\nconfig\n")[0]


@attrs.define(eq=False, repr=False)
class UnusableNode(NodeRuntime):
    """A node whose runtime was not detected; every operation raises the reason."""

    error: ImgloadError | None = None

    def detect(self, address: str) -> NodeRuntime:
        """Return the node with its runtime; NodeError if it is stopped, or has an unknown one."""
        self.require_running()
        result = self._exec((*_LOOK, "imgload", address))
        if result.exit_status:
            raise self._shell_failed(result)
        look = result.stdout.decode(errors="replace")
        if address:
            with self.naming_node_in_errors():
                return _containerd(self, look, address)
        file = endpoint_of(look).rpartition("/")[2]
        default, *_ = RUNTIMES.values()
        runtime = next((make for key, make in RUNTIMES.items() if key in file), default)
        with self.naming_node_in_errors():
            return runtime(self, look)

    def require_running(self) -> None:
        if self.error:
            raise self.error
        super().require_running()

    def _refuse(self) -> NoReturn:
        raise self.error or NodeUnusable(f"{self.name}: its runtime is unknown", node=self.name)

    def survey(self, question: SurveyQuery) -> Survey:  # noqa: ARG002
        self._refuse()

    def import_layout(
        self,
        layout: Iterable[Chunk],  # noqa: ARG002
        platform: Platform,  # noqa: ARG002
        question: SurveyQuery,  # noqa: ARG002
    ) -> Survey:
        self._refuse()

    def tag(
        self,
        image: NamedImage,  # noqa: ARG002
        existing: str,  # noqa: ARG002
        target: Digest,  # noqa: ARG002
        before: PreviousNames,  # noqa: ARG002
    ) -> Survey:
        self._refuse()

    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:  # noqa: ARG002
        self._refuse()

    def images(self) -> Mapping[str, Digest]:
        self._refuse()

    def untag(self, names: Sequence[str]) -> None:  # noqa: ARG002
        self._refuse()

    def remove(self, names: Sequence[str]) -> None:  # noqa: ARG002
        self._refuse()
