"""`python -m tests.lab.users_machine COMMAND...`: run a command on a user's machine.

Docker and Podman listen on their usual sockets, with images, volumes and a kind cluster. A Docker
context, a Podman connection and a kube context are selected. All of this runs in its own
namespaces, where the engines of this machine are not visible. The exit status is the command's; it
is 1 if the command called or changed one of those engines, or changed their settings in the home.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from tests.lab import cluster as clusters
from tests.lab import nodeimage
from tests.lab.cluster import Spec
from tests.lab.daemon import Daemon
from tests.lab.debian import install_missing
from tests.lab.docker import Docker
from tests.lab.engine import Engine, ping
from tests.lab.machine import Paths, demand_root
from tests.lab.podman import Podman
from tests.lab.shell import LabError, run, step, write
from tests.lab.suites import NEWEST

_INSIDE = "--inside"
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
_DISK = "/var/tmp"
"""Used instead of /tmp, which may be in memory."""
_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: kind-kind
clusters: [{name: kind-kind, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: kind-kind, context: {cluster: kind-kind, user: kind-kind}}]
users: [{name: kind-kind, user: {}}]
"""
_SETTINGS = (".cache/imgload", ".config/containers", ".docker", ".kube", ".local/share/containers")
"""Folders in the home that must not change; pip may write to other ones."""
_CALLS = ("Calling ", "@ - - ")
"""Markers of requests in the logs of Docker and Podman."""


@attrs.frozen
class UsersDocker(Docker):
    """dockerd on its default socket, with its default folders, without firewall rules."""

    @property
    def socket(self) -> Path:
        return Path("/var/run/docker.sock")

    @property
    def daemon(self) -> Daemon:
        argv = ("dockerd", "--debug", "--bridge=none", "--iptables=false", "--ip-forward=false")
        return Daemon(self.name, argv, self.paths.run, partial(ping, self.socket))

    def start(self) -> None:
        self.daemon.start()


@attrs.frozen
class UsersPodman(Podman):
    """Root's Podman with its default folders and socket."""

    @property
    def socket(self) -> Path:
        return Path("/run/podman/podman.sock")

    @property
    def client(self) -> tuple[str, ...]:
        local = ("env", "--unset=CONTAINER_CONNECTION", "podman")
        return (*local, "--runtime=runc", "--cgroup-manager=cgroupfs")

    @property
    def daemon(self) -> Daemon:
        argv = (*self.client, "--log-level=info", "system", "service", "--time=0", self.url)
        return Daemon(self.name, argv, self.paths.run, partial(ping, self.socket))

    def start(self) -> None:
        self.socket.parent.mkdir(parents=True)
        self.daemon.start()


def main() -> int:
    """Run the command; return the exit status."""
    if sys.argv[1:2] == [_INSIDE]:
        return _inside(Path(sys.argv[2]), sys.argv[3:])
    demand_root()
    install_missing()
    work = Path(tempfile.mkdtemp(prefix="imgload-user-", dir=_DISK))
    try:
        again = (sys.executable, "-m", "tests.lab.users_machine", _INSIDE, str(work))
        return _wait(subprocess.Popen([*_NAMESPACES, *again, *sys.argv[1:]]))
    finally:
        shutil.rmtree(work)


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the process, which also receives Ctrl-C from the terminal."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _inside(work: Path, command: list[str]) -> int:
    _hide_machine(work)
    (work / "cache").symlink_to(Paths.find().folder() / "cache")
    Paths.find().cache.mkdir(exist_ok=True)
    paths = Paths(work, Path("/run/imgload-user"))
    docker, podman = UsersDocker("docker", paths), UsersPodman("podman", paths)
    os.environ.update(_environ(work / "home"))
    with ExitStack() as stack:
        for engine in (docker, podman):
            stack.enter_context(_running(engine))
        _fill(docker, podman)
        before = _state(work / "home", docker, podman)
        calls = _calls(docker, podman)
        status = _wait(subprocess.Popen(command))
        called = _calls(docker, podman)[len(calls) :]
        after = _state(work / "home", docker, podman)
    changed = [f"changed: {key}" for key in before | after if before.get(key) != after.get(key)]
    for line in [*changed, *(f"called: {call}" for call in called)]:
        sys.stderr.write(f"the user's machine: {line}\n")
    return status or int(bool(changed or called))


def _hide_machine(work: Path) -> None:
    """Mount over the folders and settings of the engines, but keep /etc/resolv.conf usable."""
    name_servers = Path("/etc/resolv.conf").resolve()
    text = name_servers.read_text()
    for folder in ("/run", "/dev/shm"):
        run("mount", "-t", "tmpfs", "tmpfs", folder)
    for folder in ("/var/lib/docker", "/var/lib/containers"):
        own = work / Path(folder).name
        own.mkdir()
        Path(folder).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", own, folder)
    settings = Path("/etc/containers")  # Podman 4 writes root's connections there
    shutil.copytree(settings, work / "containers.d", symlinks=True)
    run("mount", "--bind", work / "containers.d", settings)
    if not name_servers.exists():
        write(name_servers, text)


def _environ(home: Path) -> dict[str, str]:
    """Return variables that a user may export; pip keeps its settings and cache."""
    pip = Path.home() / ".config/pip"
    if pip.exists():
        (home / ".config").mkdir(parents=True)
        (home / ".config/pip").symlink_to(pip)
    return {
        "HOME": str(home),
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip")),
        "KUBECONFIG": str(home / ".kube/config"),
        "KIND_EXPERIMENTAL_PROVIDER": "docker",
        "XDG_RUNTIME_DIR": "/run/user/0",
        "DOCKER_CONTEXT": "mine",
        "CONTAINER_CONNECTION": "mine",
    }


@contextmanager
def _running(engine: Engine) -> Iterator[None]:
    with step(f"the user's {engine.name}: started"):
        engine.start()
    try:
        yield
    finally:
        engine.clear()


def _fill(docker: Docker, podman: Podman) -> None:
    write(Path(os.environ["KUBECONFIG"]), _KUBECONFIG)
    socket = Path(os.environ["XDG_RUNTIME_DIR"]) / "podman/podman.sock"
    socket.parent.mkdir(parents=True)
    socket.symlink_to(podman.socket)
    run("docker", "context", "create", "mine", "--docker", f"host={docker.url}")
    run("docker", "context", "use", "mine", env={"DOCKER_CONTEXT": ""})
    run("podman", "system", "connection", "add", "mine", podman.url)
    for engine in (docker, podman):
        engine.build("app:dev", {"app": b"the user's"})
        engine.cli("volume", "create", "data")
    nodeimage.ensure(docker, NEWEST)
    spec = Spec(name="kind", engine=docker.name, network="none")
    [node] = clusters.create(spec, docker, {}).nodes
    node.ctr("images", "import", "-", stdin=docker.raw("save", "app:dev"))


def _state(home: Path, docker: Docker, podman: Podman) -> dict[str, str]:
    """Return everything that must not change, by name."""
    state = {}
    for engine in (docker, podman):
        for listing in (
            ("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Names}} {{.State}}"),
            ("image", "ls", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"),
            ("network", "ls"),
            ("volume", "ls"),
        ):
            state[f"{engine.name} {listing[0]}"] = engine.cli(*listing)
    for kind in ("images", "content", "containers", "snapshots"):
        words = ("exec", "kind-control-plane", "ctr", "-n", "k8s.io", kind, "ls")
        state[f"the node's {kind}"] = docker.cli(*words, *(["-q"] if kind != "snapshots" else []))
    files = (path for folder in _SETTINGS for path in sorted((home / folder).rglob("*")))
    for path in (Path("/dev/shm/libpod_lock"), *files):
        if path.is_file():
            state[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return state


def _calls(*engines: Engine) -> list[str]:
    time.sleep(1)  # the logs may lag behind the answers
    logs = (engine.daemon.log.read_text(errors="replace") for engine in engines)
    return [line for log in logs for line in log.splitlines() if any(c in line for c in _CALLS)]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(str(error))
