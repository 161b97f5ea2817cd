"""The names, labels, mounts and files of each tool's node containers."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tests.lab.nodeimage import CONFIGS

Files = Mapping[str, tuple[str, int]]
"""Text and mode of each path."""

_K3S = "/var/lib/rancher/k3s/agent"
_K3S_STATE = "/run/k3s/containerd"
K3S_SOCKET = f"{_K3S_STATE}/containerd.sock"
_K3S_PROGRAM = f"""\
#!/bin/sh
program=${{0##*/}}
if [ "$program" = k3s ]; then program=$1; shift; fi
case $program in
ctr)
    export CONTAINERD_ADDRESS=${{CONTAINERD_ADDRESS:-{K3S_SOCKET}}}
    export CONTAINERD_NAMESPACE=${{CONTAINERD_NAMESPACE:-k8s.io}}
    exec /opt/k3s/ctr "$@" ;;
crictl) exec /usr/local/bin/crictl "$@" ;;
*) echo "k3s: no $program here" >&2; exit 1 ;;
esac
"""
_K3S_ENTRYPOINT = f"""\
#!/bin/sh
trap 'kill $containerd; exit 0' TERM INT
mkdir -p /var/log {_K3S}/etc/containerd
cp /opt/k3s/config.toml {_K3S}/etc/containerd/config.toml
[ -e /opt/k3s/ctr ] || mv /usr/bin/ctr /opt/k3s/ctr
[ -e /opt/k3s/bare ] || ln -sf /bin/k3s /usr/bin/ctr
while :; do
    containerd --config {_K3S}/etc/containerd/config.toml >>/var/log/containerd.log 2>&1 &
    containerd=$!
    wait $containerd
    sleep 0.2
done
"""
_K3S_PLACES = f"""\
root = "{_K3S}/containerd"
state = "{_K3S_STATE}"
[grpc]
  address = "{K3S_SOCKET}"
"""


class Shape(ABC):
    """The properties of a tool's nodes."""

    mounts: Sequence[str] = ("--tmpfs=/tmp", "--tmpfs=/run")
    volume = "/var"
    ctr: tuple[str, ...] = ("ctr",)

    @abstractmethod
    def names(self, cluster: str, roles: Sequence[str]) -> Iterator[str]:
        """Yield the containers' names, one for each role."""

    @abstractmethod
    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        """Return a container's labels."""

    def files(self, containerd: str) -> Files:
        """Return the files that differ from the image's, for a version of containerd."""
        del containerd
        return {}


class Kind(Shape):
    """kind: `NAME-worker2`."""

    def names(self, cluster: str, roles: Sequence[str]) -> Iterator[str]:
        seen: Counter[str] = Counter()
        for role in roles:
            seen[role] += 1
            suffix = role if seen[role] == 1 else f"{role}{seen[role]}"
            yield f"{cluster}-{suffix}"

    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        del name
        return {"io.x-k8s.kind.cluster": cluster, "io.x-k8s.kind.role": role}


class K3d(Shape):
    """k3d: `k3d-NAME-agent-0`; containerd has k3s's paths and the native snapshotter."""

    mounts = ("--tmpfs=/run", "--tmpfs=/var/run")
    volume = "/var/lib/rancher/k3s"
    ctr = ("k3s", "ctr")

    def names(self, cluster: str, roles: Sequence[str]) -> Iterator[str]:
        seen: Counter[str] = Counter()
        for role in roles:
            yield f"k3d-{cluster}-{role}-{seen[role]}"
            seen[role] += 1

    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        del name
        return {"app": "k3d", "k3d.cluster": cluster, "k3d.role": role}

    def files(self, containerd: str) -> Files:
        version, _, rest = CONFIGS[containerd].partition("\n")
        settings = f"{version}\n{_K3S_PLACES}{rest}".replace('"overlayfs"', '"native"')
        return {
            "bin/k3s": (_K3S_PROGRAM, 0o755),
            "opt/k3s/config.toml": (settings, 0o644),
            "usr/local/bin/entrypoint": (_K3S_ENTRYPOINT, 0o755),
        }


class BareK3s(K3d):
    """k3s in a container without labels and without a `ctr` link."""

    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        del cluster, name, role
        return {}

    def files(self, containerd: str) -> Files:
        return {**super().files(containerd), "opt/k3s/bare": ("", 0o644)}


class Minikube(Shape):
    """minikube with its docker or podman driver: `NAME`, `NAME-m02`."""

    endpoint = "unix:///run/containerd/containerd.sock"

    def names(self, cluster: str, roles: Sequence[str]) -> Iterator[str]:
        for number, _ in enumerate(roles, 1):
            yield cluster if number == 1 else f"{cluster}-m{number:02}"

    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        """Return the labels; the role is empty, because minikube's kic driver sets none."""
        del cluster, role
        host = "minikube.sigs.k8s.io"
        named = {f"name.{host}": name, f"mode.{host}": name}
        return {f"created_by.{host}": "true", f"role.{host}": "", **named}

    def files(self, containerd: str) -> Files:
        del containerd
        return {"etc/crictl.yaml": (f"runtime-endpoint: {self.endpoint}\n", 0o644)}


class DockerInMinikube(Minikube):
    """minikube with the Docker runtime, which also runs a containerd."""

    endpoint = "unix:///var/run/cri-dockerd.sock"
