"""Cluster providers: the programs that make clusters, such as kind and Colima."""

from __future__ import annotations

import os
import re
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from imgload.clusters.kubeconfig import current_file
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.containerd import CONTAINERD, K3S, Containerd
from imgload.clusters.nodes.detect import detect
from imgload.clusters.nodes.node import Node
from imgload.engines.base import Container, ContainerHost

_CLUSTER = r"(?a)[A-Za-z0-9][\w.-]*"
_DOCKER_DESKTOP = "docker-desktop"
_DOCKER_DESKTOP_HINT = (
    "if Docker Desktop's Kubernetes is of kind, turn on Show system containers in its settings;"
    " if it is of kubeadm, pods use Docker's own images, and nothing has to be loaded"
)


_SHARED = "nothing has to be loaded (the kubelet pulls only the tag latest)"
_MACHINE_TOOL, _MACHINE_CLUSTER, _MACHINE_ROLE = "imgload-tool", "imgload-cluster", "imgload-role"
"""Labels that `imgload.clusters.machines` gives to machines."""


class NodeContainer(NamedTuple):
    """A container that is a node, the name of its cluster, and its role there."""

    cluster: str
    role: str
    container: Container


class ClusterProvider(ABC):
    """A program that makes clusters whose nodes are containers or machines with containerd.

    To support another program, subclass this and pass an instance to `register_provider`.

    Attributes:
        name: the program's name, for messages and reports.
        label: a label that all its nodes have, as ``key`` or ``key=value``; may be empty.
        context_prefix: precedes the cluster's name in the name of its kube context; may be empty.
        runtime: where containerd is on its nodes.

    """

    name: ClassVar[str]
    label: ClassVar[str]
    context_prefix: ClassVar[str] = ""
    runtime: ClassVar[Containerd] = CONTAINERD

    @abstractmethod
    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield the nodes among some containers, in the same order.

        A container inherits the labels of its image, so labels alone are no evidence. An image
        cannot choose the name of its container: check that as well.

        Args:
            containers: those that have the label, or all; running or not, sorted by name.

        """

    def owns_context(self, context: str) -> bool:
        """Return whether a kube context is named like those of this provider's clusters."""
        return self.context_prefix != "" and context.startswith(self.context_prefix)

    def contexts(self, cluster: str) -> tuple[str, ...]:
        """Return the names that a cluster's kube context may have, the usual one first."""
        return (f"{self.context_prefix}{cluster}",)

    def absence_hint(self, context: str | None) -> str:  # noqa: ARG002 - for subclasses
        """Return how to load into a cluster that no engine runs; empty if there is no such way.

        Args:
            context: the cluster's kube context; None if any cluster will do.

        """
        return ""

    def find(
        self, engine: ContainerHost, listed: Sequence[Container] | None = None
    ) -> dict[str, list[NodeContainer]]:
        """Return the nodes of each cluster on an engine, stopped ones too, sorted by name.

        A machine of another provider has none.

        Args:
            engine: the engine, or a machine.
            listed: all of its containers; None to query those with the label.

        Raises:
            EngineError: if the engine does not list its containers.

        """
        if engine.endpoint.kind == "ssh":
            return self._find_in_machine(engine)
        key, _, value = self.label.partition("=")
        if listed is None:
            containers = engine.containers(self.label)
        else:
            containers = [
                c for c in listed if not key or (key in c.labels and value in {"", c.labels[key]})
            ]
        clusters: dict[str, list[NodeContainer]] = {}
        for node in self.nodes(sorted(containers, key=lambda c: c.name)):
            clusters.setdefault(node.cluster, []).append(node)
        return clusters

    def machines(self) -> Sequence[ContainerHost]:
        """Return the machines that are nodes, each as the host of one container; by default none.

        They are found by the files of the program, without a connection.
        """
        return ()

    def _find_in_machine(self, machine: ContainerHost) -> dict[str, list[NodeContainer]]:
        clusters: dict[str, list[NodeContainer]] = {}
        for container in machine.containers(f"{_MACHINE_TOOL}={self.name}"):
            cluster, role = container.labels[_MACHINE_CLUSTER], container.labels[_MACHINE_ROLE]
            clusters[cluster] = [NodeContainer(cluster, role, container)]
        return clusters

    def runtime_of(self, node: NodeContainer, engine: ContainerHost) -> NodeRuntime:
        """Return a node of the provider with its container runtime; containerd by default."""
        container = node.container
        return Node(container.name, engine, container, node.role, self.runtime)


class Kind(ClusterProvider):
    name = "kind"
    label = "io.x-k8s.kind.cluster"
    context_prefix = "kind-"

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield containers named ``CLUSTER-ROLE``, with a number from the second of a role on.

        kind, pkg/cluster/internal/providers/common/namer.go. Load balancers have another role.
        """
        for container in containers:
            cluster = container.labels.get(self.label, "")
            role = container.labels.get("io.x-k8s.kind.role", "")
            name = rf"(?a){re.escape(cluster)}-{role}([2-9]|[1-9]\d+)?"
            is_node = cluster and role in {"control-plane", "worker"}
            if is_node and re.fullmatch(name, container.name):
                yield NodeContainer(cluster, role, container)

    def owns_context(self, context: str) -> bool:
        return super().owns_context(context) or context == _DOCKER_DESKTOP

    def contexts(self, cluster: str) -> tuple[str, ...]:
        """Return also Docker Desktop's context for its own kind cluster, ``desktop``."""
        desktop = (_DOCKER_DESKTOP,) if cluster == "desktop" else ()
        return (*super().contexts(cluster), *desktop)

    def absence_hint(self, context: str | None) -> str:
        if context == _DOCKER_DESKTOP:
            return _DOCKER_DESKTOP_HINT
        engine = os.environ.get("KIND_EXPERIMENTAL_PROVIDER", "")
        if engine in {"", "docker", "podman"}:
            return ""
        return f"imgload cannot reach kind's nodes in {engine}: kind load image-archive FILE"


class K3d(ClusterProvider):
    name = "k3d"
    label = "app=k3d"
    context_prefix = "k3d-"
    runtime = K3S

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield containers named ``k3d-CLUSTER-ROLE-N``, or ``k3d-NAME-N``.

        The latter are made by ``k3d node create NAME`` (k3d, cmd/node/nodeCreate.go). Load
        balancers, registries and tools have other roles (k3d, pkg/types/types.go).
        """
        for container in containers:
            cluster, role = (container.labels.get(f"k3d.{key}", "") for key in ("cluster", "role"))
            is_node = role in {"server", "agent"} and re.fullmatch(_CLUSTER, cluster)
            if is_node and re.fullmatch(r"(?a)k3d-[\w.-]+-\d+", container.name):
                yield NodeContainer(cluster, role, container)


class Minikube(ClusterProvider):
    """minikube's docker or podman driver; a cluster and its context are called like its profile."""

    name = "minikube"
    label = "created_by.minikube.sigs.k8s.io=true"
    _ROLE = "role.minikube.sigs.k8s.io"

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield containers named as in their label (pkg/drivers/kic/oci/types.go).

        The second node of ``dev`` is ``dev-m02`` (pkg/drivers/kic/kic.go). The kic driver leaves
        the role's label empty; a container that only fills a volume lacks it.
        """
        nodes = {
            container.name: container
            for container in containers
            if container.labels.get("name.minikube.sigs.k8s.io") == container.name
            and container.labels.get(self._ROLE) in {"", "control-plane", "worker"}
        }
        for name, container in nodes.items():
            later = re.fullmatch(r"(.+)-m\d{2,}", name)
            cluster = later.group(1) if later and later.group(1) in nodes else name
            yield NodeContainer(cluster, container.labels[self._ROLE] or "node", container)

    def runtime_of(self, node: NodeContainer, engine: ContainerHost) -> NodeRuntime:
        """Return a node with the runtime that the profile was created for."""
        return detect(node.container.name, engine, node.container, node.role)

    def owns_context(self, context: str) -> bool:
        """Return whether minikube has a profile of that name, with whichever driver."""
        if context == "minikube":
            return True
        is_name = re.fullmatch(_CLUSTER, context) is not None
        return is_name and (_minikube_home() / "profiles" / context / "config.json").exists()

    def machines(self) -> Sequence[ContainerHost]:
        if not (home := _minikube_home()).is_dir():
            return ()
        from imgload.clusters.machines import minikube_machines  # noqa: PLC0415 - start-up

        return minikube_machines(home)

    def absence_hint(self, context: str | None) -> str:
        if not context or not self.owns_context(context):
            return ""
        from imgload.clusters.machines import minikube_driver  # noqa: PLC0415 - start-up

        if minikube_driver(_minikube_home(), context) == "none":
            return "its node is this machine: imgload load IMAGE --node ssh://root@localhost"
        profile = f"-p {shlex.quote(context)}"
        load = f"have minikube load the image: minikube {profile} image load IMAGE"
        return f"start it: minikube start {profile}; or {load}"


class ClusterApi(ClusterProvider):
    """Cluster API's Docker provider (CAPD), whose nodes have kind's images and labels."""

    name = "capd"
    label = Kind.label
    _RANDOM = "[bcdfghjklmnpqrstvwxz2456789]{5}"
    """The end of a machine's name (k8s.io/apimachinery, pkg/util/rand)."""

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield containers named after a machine: ``CLUSTER-md-0-x6k2b-4hz6b``.

        Those of a machine pool are ``CLUSTER-worker-`` and six letters or digits (cluster-api,
        test/infrastructure/docker/internal/docker/util.go, exp/internal/docker/nodepool.go). kind's
        own nodes have no such ends, and neither have the names that engines and Compose generate.
        """
        for container in containers:
            cluster = container.labels.get(self.label, "")
            role = container.labels.get("io.x-k8s.kind.role", "")
            ends = rf"(?:[\w.-]+-)?{self._RANDOM}|worker-[a-z0-9]{{6}}"
            is_node = re.fullmatch(_CLUSTER, cluster) and role in {"control-plane", "worker"}
            if is_node and re.fullmatch(rf"(?a){re.escape(cluster)}-(?:{ends})", container.name):
                yield NodeContainer(cluster, role, container)

    def owns_context(self, context: str) -> bool:
        """Return whether ``clusterctl get kubeconfig`` names contexts so, and kubeadm does not."""
        cluster = context.partition("-admin@")[0]
        return cluster not in {"", "kubernetes"} and context == self.contexts(cluster)[0]

    def contexts(self, cluster: str) -> tuple[str, ...]:
        """Return clusterctl's, and that of ``kind get kubeconfig``, which works as well."""
        return (f"{cluster}-admin@{cluster}", f"{Kind.context_prefix}{cluster}")


class VCluster(ClusterProvider):
    """vCluster's Docker driver (vind), whose nodes have no labels."""

    name = "vcluster"
    label = ""
    context_prefix = "vcluster-docker_"

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield ``vcluster.cp.CLUSTER`` and ``vcluster.node.CLUSTER.NODE``.

        An image cannot choose its container's name (vcluster, pkg/constants/cli.go).
        """
        for container in containers:
            if match := re.fullmatch(r"vcluster\.cp\.([a-z0-9-]+)", container.name):
                yield NodeContainer(match[1], "control-plane", container)
            elif match := re.fullmatch(
                r"(?a)vcluster\.node\.([a-z0-9-]+)\.[\w.-]+", container.name
            ):
                yield NodeContainer(match[1], "worker", container)

    def runtime_of(self, node: NodeContainer, engine: ContainerHost) -> NodeRuntime:
        """Return a node whose containerd is detected: the file of its configuration may differ."""
        return detect(node.container.name, engine, node.container, node.role)


class _InMachine(ClusterProvider):
    """A program whose clusters are one virtual machine each."""

    label = _MACHINE_TOOL

    def find(
        self, engine: ContainerHost, listed: Sequence[Container] | None = None
    ) -> dict[str, list[NodeContainer]]:
        """Return the nodes on a machine; a container engine has no nodes of it."""
        return super().find(engine, listed) if engine.endpoint.kind == "ssh" else {}

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        del containers
        return iter(())

    def runtime_of(self, node: NodeContainer, engine: ContainerHost) -> NodeRuntime:
        return detect(node.container.name, engine, node.container, node.role)


class Colima(_InMachine):
    """Colima's Kubernetes; cluster, machine and context are called like its profile."""

    name = "colima"

    def machines(self) -> Sequence[ContainerHost]:
        if not (home := _colima_home()).is_dir():
            return ()
        from imgload.clusters.machines import colima_machines  # noqa: PLC0415 - start-up

        return list(colima_machines(home))

    def owns_context(self, context: str) -> bool:
        return context == "colima" or context.startswith("colima-")

    def absence_hint(self, context: str | None) -> str:
        if not context or not self.owns_context(context):
            return ""
        from imgload.clusters.machines import colima_profile  # noqa: PLC0415 - start-up

        profile = colima_profile(_colima_home(), context)
        name = "" if context == "colima" else f" {shlex.quote(context.removeprefix('colima-'))}"
        if profile and profile.has_kubernetes and profile.runtime == "docker":
            return f"its pods use the images of Docker in it: {_SHARED}"
        return f"start it with Kubernetes: colima start{name} --kubernetes"


class Lima(_InMachine):
    """Lima's template k3s. Its kubeconfig, a file in the instance's folder, has another context."""

    name = "lima"

    def machines(self) -> Sequence[ContainerHost]:
        if not (home := _lima_home()).is_dir():
            return ()
        from imgload.clusters.machines import lima_machines  # noqa: PLC0415 - start-up

        return list(lima_machines(home))

    def owns_context(self, context: str) -> bool:
        return context == "default" and self._current_instance() is not None

    def contexts(self, cluster: str) -> tuple[str, ...]:
        return ("default" if self._current_instance() == cluster else f"lima-{cluster}",)

    def _current_instance(self) -> str | None:
        """Return the instance whose own kubeconfig sets the current context, or None."""
        file = current_file()
        folder = file.parent.parent if file else None
        is_own = folder and folder.parent.resolve() == _lima_home().resolve()
        return folder.name if folder and is_own else None


class RancherDesktop(_InMachine):
    """Rancher Desktop on Linux and macOS; its only cluster has one context."""

    name = "rancher-desktop"

    def machines(self) -> Sequence[ContainerHost]:
        data, settings = _rancher_home()
        if not data.is_dir():
            return ()
        from imgload.clusters.machines import rancher_machines  # noqa: PLC0415 - start-up

        return list(rancher_machines(data, settings))

    def owns_context(self, context: str) -> bool:
        return context == self.name

    def contexts(self, cluster: str) -> tuple[str, ...]:
        return (cluster,)

    def absence_hint(self, context: str | None) -> str:
        if not context or not self.owns_context(context):
            return ""
        from imgload.clusters.machines import rancher_profile  # noqa: PLC0415 - start-up

        profile = rancher_profile(_rancher_home()[1])
        if profile and profile.runtime in {"moby", "docker"}:
            return f"its pods use the images of Docker in it: {_SHARED}"
        return "start it, with Kubernetes enabled: rdctl start"


def _home() -> Path:
    return Path(os.environ.get("HOME") or Path.home())


def _lima_home() -> Path:
    return Path(os.environ.get("LIMA_HOME") or _home() / ".lima")


def _colima_home() -> Path:
    """Return Colima's folder (colima, config/files.go)."""
    given, config = os.environ.get("COLIMA_HOME"), os.environ.get("XDG_CONFIG_HOME")
    if given and Path(given).exists():
        return Path(given)
    usual, shared = _home() / ".colima", Path(config or _home() / ".config") / "colima"
    return shared if not usual.is_dir() and (config or shared.is_dir()) else usual


def _rancher_home() -> tuple[Path, Path]:
    """Return Rancher Desktop's folders for data and settings (src/go/rdctl/pkg/paths)."""
    if sys.platform == "darwin":
        library = _home() / "Library"
        data, settings = library / "Application Support", library / "Preferences"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or _home() / ".local" / "share")
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config")
    return data / "rancher-desktop", settings / "rancher-desktop"


def _minikube_home() -> Path:
    folder = Path(os.environ.get("MINIKUBE_HOME") or _home())
    return folder if folder.name == ".minikube" else folder / ".minikube"


_PROVIDERS: list[ClusterProvider] = [
    Kind(),
    K3d(),
    Minikube(),
    ClusterApi(),
    VCluster(),
    Colima(),
    Lima(),
    RancherDesktop(),
]


def register_provider(provider: ClusterProvider) -> None:
    """Have imgload look for the clusters of a provider, after those of earlier ones."""
    _PROVIDERS.append(provider)


def providers() -> tuple[ClusterProvider, ...]:
    """Return the registered providers, in their order."""
    return tuple(_PROVIDERS)


def provider_of(context: str) -> ClusterProvider | None:
    """Return the provider whose clusters have such kube contexts, or None."""
    return next((provider for provider in providers() if provider.owns_context(context)), None)
