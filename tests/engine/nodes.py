"""The nodes of the matrix in docs/compatibility.md: all kinds of nodes, by column.

To add a kind of node, add it to a column, or add a column with the images that its nodes refuse.
"""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs

from imgload.oci.digest import Digest, chain_ids
from tests.engine.kinds import DEEP, PINNED
from tests.lab import Lab, Node
from tests.lab.nodeimage import CRIO, DOCKER
from tests.lab.shape import (
    ELSEWHERE,
    BareK3s,
    ContainerdStoreInMinikube,
    CrioInMinikube,
    DockerInMinikube,
    K3d,
    K3dElsewhere,
    Kind,
    Minikube,
    Shape,
    VCluster,
)
from tests.lab.store import Store
from tests.lab.suites import NEWEST, versions
from tests.lab.vm import ADMIN, Unlabelled, Vm

_PATIENCE = 30.0
_VAR_SIZE = "2g"
_DOCKER_IMAGES = 'ids=$(docker image ls -q --no-trunc); [ -z "$ids" ] || docker image inspect $ids'


@attrs.frozen
class ExpectedImage:
    """An image to load: its requested name, and the expected state of a node.

    `chain_id` is None for an image without layers; `emulated` is set if the nodes cannot run it.
    """

    kind: str
    text: str
    image_id: str
    chain_id: str | None
    emulated: bool = False

    @property
    def name(self) -> str:
        """The expected record on a node: the name, or the image ID of an untagged image."""
        if self.text.startswith("sha256:"):
            return self.image_id
        return self.text if "/" in self.text else f"docker.io/library/{self.text}"

    @property
    def records(self) -> set[str]:
        """All expected records: the name, and the one by image ID."""
        return {self.name, self.image_id}


@attrs.frozen
class MatrixNode(ABC):
    """A running node, whose images are read without imgload.

    `address` selects it; `snapshotter` is that of a containerd.
    """

    node: Node
    address: str
    snapshotter: str = "overlayfs"

    @property
    @abstractmethod
    def version(self) -> str:
        """The version that the runtime reports."""

    @abstractmethod
    def images(self) -> Mapping[str, str]:
        """Return the image IDs by name, and by themselves."""

    @abstractmethod
    def chain_id(self, image: ExpectedImage) -> str | None:
        """Return the chain ID of the top layer of an image on the node; None without layers."""

    @abstractmethod
    def remove_all(self) -> None:
        """Remove all images with their content."""

    def wipe(self) -> None:
        """Remove all images, and wait until the node has none."""
        self.remove_all()
        self._await(set())

    def assert_has(self, images: Sequence[ExpectedImage], before: set[str]) -> None:
        """Assert that the node has each image with its layers, and no other image or name."""
        found = self._await(before.union(*(image.records for image in images)))
        for image in images:
            assert found[image.name] == image.image_id, image
            assert self.chain_id(image) == image.chain_id, image

    def _await(self, names: set[str]) -> Mapping[str, str]:
        """Return the images as soon as these are all names: CRI hears of an image by an event."""
        end = time.monotonic() + _PATIENCE
        while (found := self.images()).keys() != names and time.monotonic() < end:
            time.sleep(0.05)
        assert found.keys() == names, self.address
        return found


class ContainerdNode(MatrixNode):
    """Images are those of CRI; names and snapshots those of containerd."""

    @property
    def version(self) -> str:
        return self.node.ctr("version").rpartition("Version:")[2].split()[0]

    @property
    def _store(self) -> Store:
        return Store(self.node.cri().socket)

    def images(self) -> Mapping[str, str]:
        cri = self.node.cri()
        return {name: cri.image_id(name) or "" for name in self._store.records()}

    def chain_id(self, image: ExpectedImage) -> str | None:
        found = image.chain_id in self._store.snapshots(self.snapshotter)
        return image.chain_id if found else None

    def remove_all(self) -> None:
        self._store.remove(sorted(self._store.records()))
        end = time.monotonic() + _PATIENCE
        while self.node.cri().list_images() and time.monotonic() < end:
            time.sleep(0.05)
        assert self._store.snapshots(self.snapshotter) == set()


def _top(layers: Sequence[str]) -> str | None:
    digests = tuple(map(Digest.parse, layers))
    return str(chain_ids(digests)[-1]) if digests else None


class DockerNode(MatrixNode):
    """Images are those of the node's own ``docker``; cri-dockerd is in no Debian package."""

    @property
    def version(self) -> str:
        return self.node.exec("docker", "version", "--format", "{{.Server.Version}}").strip()

    def images(self) -> Mapping[str, str]:
        names: dict[str, str] = {}
        for image in json.loads(self.node.exec("sh", "-c", _DOCKER_IMAGES) or "[]"):
            full = (tag if "/" in tag else f"docker.io/library/{tag}" for tag in image["RepoTags"])
            names |= dict.fromkeys((image["Id"], *full), image["Id"])
        return names

    def chain_id(self, image: ExpectedImage) -> str | None:
        shown = self.node.exec("docker", "image", "inspect", image.image_id)
        return _top(json.loads(shown)[0]["RootFS"].get("Layers") or ())

    def remove_all(self) -> None:
        image_ids = set(self.images().values())
        if image_ids:
            self.node.exec("docker", "image", "rm", "--force", *image_ids)


class MobyNode(DockerNode):
    """Images are those in the namespace of the node's Docker, which has no image IDs."""

    def images(self) -> Mapping[str, str]:
        lines = self._ctr("images", "ls").splitlines()[1:]
        names = {line.split()[0]: self._image_id(line.split()[2]) for line in lines}
        own = {name: i for name, i in names.items() if not name.startswith("moby-dangling@")}
        return {**own, **{image_id: image_id for image_id in names.values()}}

    def _image_id(self, digest: str) -> str:
        document = json.loads(self._ctr("content", "get", digest))
        for manifest in document.get("manifests", ()):
            if manifest["platform"]["architecture"] == "amd64":
                return self._image_id(manifest["digest"])
        return str(document["config"]["digest"])

    def chain_id(self, image: ExpectedImage) -> str | None:
        snapshots = {line.split()[0] for line in self._ctr("snapshots", "ls").splitlines()[1:]}
        return image.chain_id if image.chain_id in snapshots else None

    def remove_all(self) -> None:
        if names := self._ctr("images", "ls", "--quiet").split():
            self._ctr("images", "rm", "--sync", *names)

    def _ctr(self, *command: str) -> str:
        return self.node.exec("ctr", "--namespace", "moby", *command)


class CrioNode(MatrixNode):
    """Images are those of the node's Podman, which shares its store with CRI-O."""

    @property
    def version(self) -> str:
        return self.node.exec("podman", "--version").split()[2]

    def images(self) -> Mapping[str, str]:
        listed = json.loads(self.node.exec("podman", "images", "--format", "json"))
        ids = [(f"sha256:{image['Id']}", image.get("Names") or ()) for image in listed]
        return {name: image_id for image_id, names in ids for name in (*names, image_id)}

    def chain_id(self, image: ExpectedImage) -> str | None:
        shown = self.node.exec("podman", "image", "inspect", image.image_id.partition(":")[2])
        return _top(json.loads(shown)[0]["RootFS"]["Layers"] or ())

    def remove_all(self) -> None:
        self.node.exec("podman", "rmi", "--all", "--force")


@attrs.frozen
class NodeKind:
    """A kind of node: its title on the page, and how the lab makes it.

    With `by_ssh`, imgload connects to the node's ssh server, as to a machine. With `in_memory`, the
    node's /var is in memory, which hides the shape's files there.
    """

    title: str
    shape: Shape
    version: str = NEWEST
    reader: type[MatrixNode] = ContainerdNode
    engine: str = "docker"
    role: str = "control-plane"
    snapshotter: str = "overlayfs"
    crictl: bool = False
    by_ssh: bool = False
    in_memory: bool = False

    def make(self, lab: Lab, folder: Path) -> MatrixNode:
        """Create a node that no other test uses; `folder` gets the settings of ssh."""
        made = lab.make_cluster(
            name=f"lab-x{secrets.token_hex(3)}",
            engine=self.engine,
            containerd=self.version,
            roles=(self.role,),
            shape=self.shape,
            crictl=self.crictl,
            var_size=_VAR_SIZE if self.in_memory else None,
        )
        [node] = made.nodes
        address = Vm.start(node, folder).url(ADMIN) if self.by_ssh else node.name
        return self.reader(node, address, self.snapshotter)


@attrs.frozen
class Refusal:
    """An error of imgload, and its reason."""

    kind: str
    reason: str


@attrs.frozen
class Column:
    """Kinds of nodes for which every image has the same result.

    `refused` has the kinds of images that these nodes cannot have, although others can.
    """

    kinds: Sequence[NodeKind]
    refused: Mapping[str, Refusal] = attrs.field(factory=dict)


_DOCKER_REFUSES = {
    DEEP: Refusal("import-failed", "Docker's overlay2 driver stacks at most 125 layers"),
    PINNED: Refusal("import-failed", "Docker stores no manifests of images that it loads"),
}
_IN_MEMORY = partial(NodeKind, in_memory=True)
_NATIVE = partial(NodeKind, role="server", snapshotter="native")
_DOCKERS = [
    NodeKind(f"minikube with Docker {version}", DockerInMinikube(), image, DockerNode)
    for image, (_, version) in DOCKER.items()
]
_CRIOS = [
    _IN_MEMORY(f"minikube with CRI-O's store, Podman {version}", CrioInMinikube(), image, CrioNode)
    for image, version in CRIO.items()
]


def _by_ssh(*kinds: NodeKind) -> list[NodeKind]:
    """Return the same nodes as machines."""
    titles = [kind.title.replace("minikube", "machine") for kind in kinds]
    return [attrs.evolve(k, title=t, by_ssh=True) for k, t in zip(kinds, titles, strict=True)]


CONTAINERD = "kind"
COLUMNS = {
    CONTAINERD: Column(
        [
            _IN_MEMORY(f"kind with containerd {version}", Kind(), version, crictl=version == NEWEST)
            for version in versions("containerd")
        ]
    ),
    "other paths": Column(
        [
            NodeKind("minikube with containerd, in Podman", Minikube(), engine="podman"),
            NodeKind("vCluster with containerd", VCluster()),
            _NATIVE("k3d with containerd", K3d()),
            _NATIVE("k3d with containerd, another data folder", K3dElsewhere()),
            _NATIVE("k3s with containerd", BareK3s()),
            *(
                _NATIVE(f"{name} with containerd", ELSEWHERE[name.lower()])
                for name in ("k0s", "RKE2", "MicroK8s")
            ),
        ]
    ),
    "Docker": Column(_DOCKERS, _DOCKER_REFUSES),
    "Docker, containerd store": Column(
        [
            NodeKind(
                "minikube with Docker newest, containerd store",
                ContainerdStoreInMinikube(),
                "docker-newest",
                MobyNode,
            )
        ]
    ),
    "CRI-O": Column(_CRIOS),
    "ssh": Column(
        _by_ssh(
            NodeKind("machine with containerd", Unlabelled(), crictl=True),
            _NATIVE("machine with k3s and containerd", BareK3s()),
        )
    ),
    "ssh, Docker": Column(_by_ssh(*_DOCKERS), _DOCKER_REFUSES),
    "ssh, CRI-O": Column(
        _by_ssh(_CRIOS[0]),
        {
            PINNED: Refusal(
                "import-failed",
                "a machine does not pull, and `podman load` reads docker-archives, which have no"
                " manifests",
            )
        },
    ),
}
"""By title; the results on all other nodes are compared with those on the nodes of `CONTAINERD`."""
