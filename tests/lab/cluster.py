"""Clusters of node containers, as kind creates them."""

import io
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tests.lab import nodeimage
from tests.lab.cri import Cri
from tests.lab.crictl import DEPRECATION, SCRIPT, WARNINGS, bridge
from tests.lab.engine import LABEL, NETWORK, Engine
from tests.lab.shape import Kind, Shape
from tests.lab.shell import CommandError, LabError, step
from tests.lab.suites import NEWEST

_PATIENCE = 30.0
_NO_INOTIFY = "initialize inotify: too many open files"
_RAISE = "a limit that all containerds on this machine share is reached; raise it, for example:"
_RAISE_INOTIFY = f"{_RAISE} sysctl -w fs.inotify.max_user_instances=1024"


@attrs.frozen(kw_only=True)
class Spec:
    """The specification of a cluster."""

    name: str
    engine: str
    containerd: str = NEWEST
    roles: Sequence[str] = ("control-plane",)
    run_args: Sequence[str] = ()
    config: str | None = None
    crictl: bool = False
    network: str = NETWORK
    var_size: str | None = None
    shape: Shape = attrs.field(factory=Kind, repr=False)

    @property
    def storage(self) -> str:
        """The option for the images' storage: a volume, or a tmpfs that can be filled up."""
        path = self.shape.volume
        return f"--tmpfs={path}:size={self.var_size}" if self.var_size else f"--volume={path}"

    @property
    def bridged(self) -> bool:
        """Whether the lab provides crictl; a real node image has its own."""
        return self.crictl and not nodeimage.real()

    def nodes(self, engine: Engine) -> list["Node"]:
        """Return the nodes with the tool's names."""
        pairs = zip(self.shape.names(self.name, self.roles), self.roles, strict=True)
        return [Node(engine, name, role, self.shape.ctr, self.shape.up) for name, role in pairs]

    def files(self) -> dict[str, tuple[str, int]]:
        """Return the files, with their modes, that differ from the image's."""
        files = dict(self.shape.files(self.containerd))
        if self.bridged:
            files["usr/local/bin/crictl"] = (SCRIPT, 0o755)
            if self.containerd == NEWEST:
                files[WARNINGS] = (DEPRECATION, 0o644)
        if self.config is not None:
            files["etc/containerd/config.toml"] = (self.config, 0o644)
        return files


@attrs.frozen
class Node:
    """A node container."""

    engine: Engine
    name: str
    role: str
    program: tuple[str, ...] = ("ctr",)
    up: str = Shape.up

    def exec(self, *argv: str, stdin: bytes | None = None) -> str:
        """Return the output of a command on the node; raise `CommandError` with its stderr."""
        if stdin is None:
            return self.engine.cli("exec", self.name, *argv)
        return self.engine.cli("exec", "-i", self.name, *argv, stdin=stdin)

    def ctr(self, *args: str, stdin: bytes | None = None) -> str:
        """Run `ctr` in the namespace of Kubernetes."""
        return self.exec(*self.program, "-n", "k8s.io", *args, stdin=stdin)

    @property
    def pid(self) -> int:
        """The process ID of the node's init on the host."""
        return self.engine.pid_of(self.name)

    @property
    def root(self) -> Path:
        """The node's root folder on the host."""
        return Path(f"/proc/{self.pid}/root")

    def cri(self) -> Cri:
        """Return a client of the node's CRI, which does not use crictl."""
        return Cri.at(self.pid)

    def wait(self) -> None:
        """Wait until containerd and its CRI plugin answer."""
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if time.monotonic() > deadline:
                raise LabError(self._complaint())
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Look for the socket first, which takes less time than an exec."""
        if self.program and not self.cri().socket.exists():
            return False
        try:
            self.exec("sh", "-c", self.up, *self.program)
        except CommandError:
            return False
        return True

    def _complaint(self) -> str:
        try:
            log = self.exec("tail", "-n", "20", "/var/log/containerd.log")
        except CommandError as error:
            log = str(error)
        message = f"{self.name}: containerd does not answer; its log ends:\n{log}"
        return f"{message}\n{_RAISE_INOTIFY}" if _NO_INOTIFY in log else message


@attrs.frozen
class Cluster:
    """A running cluster."""

    spec: Spec
    engine: Engine
    nodes: list[Node]

    @property
    def name(self) -> str:
        """The cluster's name in kind."""
        return self.spec.name

    def remove(self) -> None:
        """Remove the nodes with their volumes."""
        self.engine.remove_containers(*(node.name for node in self.nodes))


def attach(spec: Spec, engine: Engine, containers: Mapping[str, bool]) -> Cluster | None:
    """Return the cluster if all of its nodes run."""
    cluster = Cluster(spec, engine, spec.nodes(engine))
    if not all(containers.get(node.name) for node in cluster.nodes):
        return None
    _bridge(cluster)
    return cluster


def create(spec: Spec, engine: Engine, containers: Mapping[str, bool]) -> Cluster:
    """Create the cluster; replace an earlier one."""
    cluster = Cluster(spec, engine, spec.nodes(engine))
    engine.remove_containers(*(n.name for n in cluster.nodes if n.name in containers))
    with step(f"{engine.name}: cluster {spec.name}, containerd {spec.containerd}"):
        try:
            _start(cluster)
        except LabError:
            cluster.remove()
            raise
    return cluster


def _start(cluster: Cluster) -> None:
    for node in cluster.nodes:
        _launch(node, cluster.spec)
    for node in cluster.nodes:
        node.wait()
    _bridge(cluster)


def _bridge(cluster: Cluster) -> None:
    """Start the processes that serve crictl on the nodes."""
    for node in cluster.nodes if cluster.spec.bridged else ():
        process = bridge(node.name, node.pid, node.engine.paths.run)
        process.start()


def _launch(node: Node, spec: Spec) -> None:
    node.engine.cli("create", *_options(node, spec), nodeimage.tag(spec.containerd))
    files = spec.files()
    if files:
        node.engine.cli("cp", "-", f"{node.name}:/", stdin=_tar(files))
    node.engine.cli("start", node.name)


def _options(node: Node, spec: Spec) -> list[str]:
    labels = {
        **spec.shape.labels(spec.name, node.name, node.role),
        LABEL: str(node.engine.paths.root),
    }
    modules = ["--volume=/lib/modules:/lib/modules:ro"] if Path("/lib/modules").exists() else []
    return [
        f"--name={node.name}",
        f"--hostname={node.name}",
        *(f"--label={key}={value}" for key, value in labels.items()),
        *node.engine.node_options(),
        *(*spec.shape.mounts, spec.storage, "--tty"),
        *modules,
        f"--network={spec.network}",
        *spec.run_args,
    ]


def _tar(files: Mapping[str, tuple[str, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (text, mode) in files.items():
            content = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
