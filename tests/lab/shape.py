"""The names, labels, mounts and files of each tool's node containers."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import attrs

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
    up = '"$0" "$@" version && "$0" "$@" plugins ls | grep -q "grpc.v1 *cri .* ok"'
    """The script that succeeds once the runtime answers; its words are `ctr`."""

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


class ClusterApi(Kind):
    """Cluster API's Docker provider: kind's labels, and names of machines."""

    def names(self, cluster: str, roles: Sequence[str]) -> Iterator[str]:
        for number, role in enumerate(roles, 4):
            yield f"{cluster}-{'' if role == 'control-plane' else 'md-0-'}6ctxz-4hz{number}b"


class VCluster(Shape):
    """vCluster's Docker driver: no labels, and containerd on the usual paths."""

    def names(self, cluster: str, roles: Sequence[str]) -> Iterator[str]:
        for number, role in enumerate(roles):
            is_first = role == "control-plane"
            yield f"vcluster.cp.{cluster}" if is_first else f"vcluster.node.{cluster}.node-{number}"

    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        del cluster, name, role
        return {}


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


class K3dElsewhere(K3d):
    """k3d with k3s's option ``--data-dir``."""

    volume = "/data"

    def files(self, containerd: str) -> Files:
        files = super().files(containerd)
        return {n: (text.replace(_K3S, "/data/agent"), mode) for n, (text, mode) in files.items()}


_ELSEWHERE_ENTRYPOINT = """\
#!/bin/sh
trap 'kill $containerd; exit 0' TERM INT
mkdir -p /var/log "$BIN" "${CTR%/*}"
[ -e "$BIN/containerd" ] || mv /usr/bin/containerd "$BIN/containerd"
[ -e "$CTR" ] || mv /usr/bin/ctr "$CTR"
while :; do
    "$BIN/containerd" $OPTIONS >>/var/log/containerd.log 2>&1 &
    containerd=$!
    wait $containerd
    sleep 0.2
done
"""


@attrs.frozen
class Elsewhere(Shape):
    """A container without labels, in which containerd has another distribution's paths.

    Args:
        bin: the folder of the program containerd.
        program: the path of ctr.
        root: the folder of its content.
        socket: where it listens.
        config: the path of its configuration.
        option: the option that names this path.
        wrapper: the path of a program with the subcommand ctr, if there is one.
        flags: whether options name root and socket, and not the configuration.

    """

    bin: str
    program: str
    root: str
    socket: str
    config: str
    option: str = "--config="
    wrapper: str = ""
    flags: bool = True

    @property
    def ctr(self) -> tuple[str, ...]:  # type: ignore[override]
        """The command line of ctr."""
        return (self.program, "--address", self.socket)

    def names(self, cluster: str, roles: Sequence[str]) -> Iterator[str]:
        yield from (f"{cluster}-{role}" for role in roles)

    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        del cluster, name, role
        return {}

    def files(self, containerd: str) -> Files:
        version, _, rest = CONFIGS[containerd].partition("\n")
        state = self.socket.rpartition("/")[0]
        places = f'root = "{self.root}"\nstate = "{state}"\n[grpc]\n  address = "{self.socket}"\n'
        options = f"--root {self.root} --address={self.socket} --state={state}"
        settings = rest.replace('"overlayfs"', '"native"')
        included = f"{self.config}.d/cri.toml"
        imports = f'imports = ["{included}"]\n'
        words = f"{self.option}{self.config} {options if self.flags else ''}"
        variables = f'BIN={self.bin} CTR={self.program} OPTIONS="{words}"\n'
        first, _, script = _ELSEWHERE_ENTRYPOINT.partition("\n")
        files = {
            self.config: (f"{version}\n{imports}{'' if self.flags else places}", 0o644),
            included: (f"{version}\n{settings}", 0o644),
            "/usr/local/bin/entrypoint": (f"{first}\n{variables}{script}", 0o755),
        }
        if self.wrapper:
            text = f'#!/bin/sh\n[ "$1" = ctr ] && shift\nexec {" ".join(self.ctr)} "$@"\n'
            files[self.wrapper] = (text, 0o755)
        return {path.lstrip("/"): file for path, file in files.items()}


_RKE2, _SNAP = "/var/lib/rancher/rke2", "/var/snap/microk8s"
ELSEWHERE = {
    "k0s": Elsewhere(
        bin="/var/lib/k0s/bin",
        program="/opt/ctr",
        root="/var/lib/k0s/containerd",
        socket="/run/k0s/containerd.sock",
        config="/etc/k0s/containerd.toml",
        wrapper="/usr/local/bin/k0s",
    ),
    "rke2": Elsewhere(
        bin=f"{_RKE2}/data/v1/bin",
        program=f"{_RKE2}/data/v1/bin/ctr",
        root=f"{_RKE2}/agent/containerd",
        socket=K3S_SOCKET,
        config=f"{_RKE2}/agent/etc/containerd/config.toml",
        option="-c ",
        flags=False,
    ),
    "microk8s": Elsewhere(
        bin="/var/snap/bin",
        program="/opt/ctr",
        root=f"{_SNAP}/common/var/lib/containerd",
        socket=f"{_SNAP}/common/run/containerd.sock",
        config=f"{_SNAP}/current/args/containerd.toml",
        wrapper="/snap/bin/microk8s.ctr",
    ),
}


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


_DOCKERD = """\
#!/bin/sh
trap 'kill $dockerd; exit 0' TERM INT
mkdir -p /var/log /var/lib /var/tmp
[ -e /var/run ] || ln -s /run /var/run
for path in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
    mount -o remount,rw,bind "$path" "$path" 2>/dev/null
done
containerd >>/var/log/containerd.log 2>&1 &
while :; do
    if [ ! -e /run/stay-down ]; then
        dockerd --containerd /run/containerd/containerd.sock --bridge none --iptables=false \\
            --ip6tables=false --ip-masq=false --ip-forward=false --userland-proxy=false \\
            $(cat /etc/dockerd-options 2>/dev/null) >>/var/log/dockerd.log 2>&1 &
        dockerd=$!
        wait $dockerd
    fi
    sleep 0.2
done
"""


class DockerInMinikube(Minikube):
    """minikube with the Docker runtime, on a containerd whose images pods do not see.

    cri-dockerd, which would answer at the endpoint, is in no Debian package.
    """

    endpoint = "unix:///var/run/cri-dockerd.sock"
    up = "docker version"

    def files(self, containerd: str) -> Files:
        arguments = (
            f"--container-runtime-endpoint={self.endpoint} --pod-infra-container-image=pause"
        )
        return {
            **super().files(containerd),
            "usr/local/bin/entrypoint": (_DOCKERD, 0o755),
            "var/lib/kubelet/kubeadm-flags.env": (f'KUBELET_KUBEADM_ARGS="{arguments}"\n', 0o644),
        }


class ContainerdStoreInMinikube(DockerInMinikube):
    """The same with Docker's containerd image store, Docker 29's default."""

    def files(self, containerd: str) -> Files:
        settings = '{"features": {"containerd-snapshotter": true}}'
        return {**super().files(containerd), "etc/docker/daemon.json": (settings, 0o644)}


class CrioInMinikube(Minikube):
    """minikube with CRI-O, without CRI-O itself, which is in no Debian package.

    Podman's store has the settings of CRI-O's in minikube's base image.
    """

    endpoint = "unix:///var/run/crio/crio.sock"
    ctr = ()
    up = "podman --version"
