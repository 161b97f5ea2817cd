"""Machines found by the files of Colima, Lima, Rancher Desktop and minikube; no connection."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from imgload.clusters.cluster import find_clusters
from imgload.clusters.listing import list_clusters
from imgload.clusters.provider import Colima, Lima, Minikube, RancherDesktop, providers
from imgload.clusters.select import select_nodes
from imgload.core.errors import ClusterNotFound
from imgload.engines.base import ContainerHost
from imgload.engines.machine import SshMachine
from tests.schema import complaints

SSH_CONFIG = """\
# This SSH config file can be passed to 'ssh -F'.
Host lima-{name}
  IdentityFile "/home/me/.lima/_config/user"
  User me
  Hostname 127.0.0.1
  Port 60022
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home folder; every variable that names another folder is unset."""
    for name in ("LIMA_HOME", "COLIMA_HOME", "MINIKUBE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def instance(folder: Path, *, pid: int | str = os.getpid()) -> Path:
    """Write the files of a Lima instance, whose host agent has a process ID; return its folder."""
    write(folder / "ssh.config", SSH_CONFIG.format(name=folder.name))
    write(folder / "ha.pid", f"{pid}\n")
    return folder


def lima(home: Path, name: str = "k3s") -> Path:
    """Write an instance of the template k3s; return its kubeconfig."""
    folder = instance(home / ".lima" / name)
    return write(folder / "copied-from-guest/kubeconfig.yaml", "current-context: default\n")


def colima(
    home: Path, context: str = "colima", *, runtime: str = "containerd", kubernetes: bool = True
) -> None:
    """Write a profile, as it is while it runs."""
    folder = instance(home / ".colima/_lima" / context)
    text = f"cpu: 2\nruntime: {runtime}\nkubernetes:\n  enabled: {str(kubernetes).lower()}\n"
    write(folder / "colima.yaml", f"{text}  k3sArgs:\n    - --disable=traefik\n")


def rancher(home: Path, engine: str = "containerd", *, kubernetes: bool = True) -> None:
    """Write Rancher Desktop's settings and instance."""
    instance(home / ".local/share/rancher-desktop/lima/0")
    document = {"containerEngine": {"name": engine}, "kubernetes": {"enabled": kubernetes}}
    write(home / ".config/rancher-desktop/settings.json", json.dumps(document))


def minikube(
    home: Path, profile: str = "minikube", *, driver: str = "kvm2", port: int = 22, **fields: object
) -> None:
    """Write a profile with two nodes."""
    nodes = [{"Name": "", "ControlPlane": True}, {"Name": "m02", "ControlPlane": False}]
    document = {"Name": profile, "Driver": driver, "Nodes": nodes}
    write(home / ".minikube/profiles" / profile / "config.json", json.dumps(document))
    for name in (profile, f"{profile}-m02"):
        machine = home / ".minikube/machines" / name
        about: dict[str, object] = {
            "IPAddress": "127.0.0.1",
            "MachineName": name,
            "SSHUser": "docker",
        }
        about |= {"SSHPort": port, "SSHKeyPath": str(machine / "id_rsa")} | fields
        write(machine / "config.json", json.dumps({"ConfigVersion": 3, "Driver": about}))


def in_context(home: Path, name: str) -> None:
    (home / "kubeconfig").write_text(f"current-context: {name}\n")


def machine_of(host: ContainerHost) -> SshMachine:
    assert isinstance(host, SshMachine)
    return host


def test_nothing_is_found_in_an_empty_home(home: Path) -> None:
    """And no folder is made."""
    assert find_clusters([]) == []
    assert list(home.iterdir()) == []


def test_lima_is_selected_by_its_own_kubeconfig(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its context is ``default``, which many kubeconfigs have; so the file decides."""
    kubeconfig = lima(home)
    instance(home / ".lima" / "docker")  # no k3s
    [cluster] = find_clusters([])
    assert (cluster.name, cluster.tool.name, cluster.context) == ("k3s", "lima", "lima-k3s")
    login = machine_of(cluster.engine).login
    assert (login.host, login.config) == ("lima-k3s", str(home / ".lima/k3s/ssh.config"))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    lima(home, "other")
    [node] = select_nodes([], None, ())
    assert (node.name, node.role, node.container.state) == ("k3s", "server", "running")
    in_context(home, "default")
    monkeypatch.setenv("KUBECONFIG", str(home / "kubeconfig"))
    assert not Lima().owns_context("default")


@pytest.mark.parametrize("context", ["colima", "colima-dev"])
def test_colima_is_selected_by_its_context(home: Path, context: str) -> None:
    """With the settings of the running profile."""
    colima(home, "colima")
    colima(home, "colima-dev")
    colima(home, "colima-off", kubernetes=False)
    in_context(home, context)
    [node] = select_nodes([], None, ())
    assert node.name == context
    assert machine_of(node.engine).login.config == str(home / f".colima/_lima/{context}/ssh.config")
    assert {cluster.name for cluster in find_clusters([])} == {"colima", "colima-dev"}


@pytest.mark.parametrize(
    ("runtime", "kubernetes", "hint"),
    [
        ("docker", True, "nothing has to be loaded"),
        ("docker", False, "colima start dev --kubernetes"),
        ("containerd", False, "colima start dev --kubernetes"),
    ],
)
def test_colima_with_docker_needs_no_load(
    home: Path,
    runtime: str,
    kubernetes: bool,  # noqa: FBT001 - a parameter of the test
    hint: str,
) -> None:
    """Its k3s runs with ``--docker``, on the Docker that builds."""
    colima(home, "colima-dev", runtime=runtime, kubernetes=kubernetes)
    in_context(home, "colima-dev")
    with pytest.raises(ClusterNotFound) as caught:
        select_nodes([], None, ())
    assert hint in caught.value.hint


def test_colima_home_may_be_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In COLIMA_HOME, or below XDG_CONFIG_HOME without ``~/.colima`` (colima, config/files.go)."""
    colima(home)
    (home / ".colima").rename(home / "moved")
    assert not Colima().machines()
    monkeypatch.setenv("COLIMA_HOME", str(home / "moved"))
    assert len(Colima().machines()) == 1
    monkeypatch.delenv("COLIMA_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    (home / "xdg").mkdir()
    (home / "moved").rename(home / "xdg/colima")
    assert len(Colima().machines()) == 1


@pytest.mark.parametrize("engine", ["containerd", "moby"])
def test_rancher_desktop_is_selected_by_its_context(home: Path, engine: str) -> None:
    """Its only instance is called 0. With moby, pods use the images of its Docker."""
    rancher(home, engine)
    in_context(home, "rancher-desktop")
    if engine == "containerd":
        [node] = select_nodes([], None, ())
        assert (node.name, machine_of(node.engine).login.host) == ("rancher-desktop", "lima-0")
    else:
        with pytest.raises(ClusterNotFound) as caught:
            select_nodes([], None, ())
        assert "nothing has to be loaded" in caught.value.hint


def test_rancher_desktop_on_macos(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folders are below ``~/Library``."""
    rancher(home)
    (home / "Library/Application Support").mkdir(parents=True)
    (home / ".local/share/rancher-desktop").rename(
        home / "Library/Application Support/rancher-desktop"
    )
    (home / ".config").rename(home / "Library/Preferences")
    monkeypatch.setattr("sys.platform", "darwin")
    assert len(RancherDesktop().machines()) == 1


def test_minikube_machines_have_the_profile_as_context(home: Path) -> None:
    """The key and the address are those of the machine."""
    minikube(home, "vm")
    minikube(home, "containers", driver="docker")
    in_context(home, "vm")
    nodes = select_nodes([], None, ())
    assert [(n.name, n.role) for n in nodes] == [("vm", "control-plane"), ("vm-m02", "worker")]
    login = machine_of(nodes[1].engine).login
    assert (login.user, login.host, login.port) == ("docker", "127.0.0.1", 22)
    assert login.identity == str(home / ".minikube/machines/vm-m02/id_rsa")
    assert "-oStrictHostKeyChecking=no" in login.argv(command="")


def test_a_host_key_is_checked_unless_minikube_made_the_vm(home: Path) -> None:
    """The driver ssh uses a machine of the user's; a public address is no VM's."""
    minikube(home, "own", driver="ssh")
    minikube(home, "far", IPAddress="8.8.8.8")
    for host in Minikube().machines():
        assert "StrictHostKeyChecking" not in " ".join(machine_of(host).login.argv(command=""))


def test_the_driver_none_has_a_hint(home: Path) -> None:
    """Its node is this machine."""
    minikube(home, driver="none")
    in_context(home, "minikube")
    with pytest.raises(ClusterNotFound) as caught:
        select_nodes([], None, ())
    assert "--node ssh://root@localhost" in caught.value.hint


def test_stopped_machines_are_listed_as_stopped(home: Path) -> None:
    """By Lima's host agent, or by minikube's address, at which nothing listens."""
    colima(home)
    instance(home / ".colima/_lima/colima", pid="no number")
    lima(home, "old")
    instance(home / ".lima/old", pid=2**22 + 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        minikube(home, "up", port=server.getsockname()[1])
        states = {n.name: n.container.state for c in find_clusters([]) for n in c.nodes}
    assert complaints(json.loads(json.dumps(list_clusters([]).to_json())), "clusters") == []
    assert states == {"colima": "stopped", "old": "stopped", "up": "running", "up-m02": "running"}


def test_a_stopped_machine_is_started_by_its_tool(home: Path) -> None:
    """The hint of the error that a load reports."""
    colima(home, "colima-dev")
    instance(home / ".colima/_lima/colima-dev", pid="")
    [cluster] = find_clusters([])
    container = cluster.nodes[0].container
    assert cluster.engine.start_hint(container) == "colima start dev"


@pytest.mark.parametrize("path", ["ssh.config", "colima.yaml", "."])
def test_a_file_that_others_could_change_is_ignored(home: Path, path: str) -> None:
    """ssh's settings can name a command to run."""
    colima(home)
    os.umask(os.umask(0))
    (home / ".colima/_lima/colima" / path).chmod(0o777)
    assert find_clusters([]) == []


@pytest.mark.parametrize("text", ["", "Host *\n", "Host -oProxyCommand=x\n", "\xff", "Host a b\n"])
def test_ssh_settings_without_a_usable_host_are_ignored(home: Path, text: str) -> None:
    """The name of the host is an argument of ssh."""
    colima(home)
    (home / ".colima/_lima/colima/ssh.config").write_bytes(text.encode("latin-1"))
    assert find_clusters([]) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"IPAddress": "-oProxyCommand=x"},
        {"IPAddress": ""},
        {"IPAddress": 7},
        {"SSHUser": "-l"},
        {"SSHUser": "a b"},
        {"SSHPort": 99999},
        {"SSHPort": "22"},
        {"SSHKeyPath": "-oProxyCommand=x"},
        {"SSHKeyPath": "relative"},
    ],
)
def test_a_minikube_machine_that_ssh_could_misread_is_ignored(
    home: Path, fields: dict[str, object]
) -> None:
    """Its file may be damaged, or of another version."""
    minikube(home, **fields)  # type: ignore[arg-type]
    assert find_clusters([]) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", ""])
def test_a_minikube_node_cannot_lead_to_another_folder(home: Path, name: str) -> None:
    """The names of nodes are parts of paths."""
    minikube(home)
    nodes = [{"Name": "m01"}, {"Name": name}]
    text = json.dumps({"Driver": "kvm2", "Nodes": nodes})
    write(home / ".minikube/profiles/minikube/config.json", text)
    names = [machine_of(host).node.name for host in Minikube().machines()]
    assert names == (["minikube"] if not name else [])


@pytest.mark.parametrize(
    "path", [".colima/_lima/colima/colima.yaml", ".config/rancher-desktop/settings.json"]
)
@pytest.mark.parametrize("text", ["", "[]", "{", "a: [", "kubernetes: true", "x" * (2 << 20)])
def test_damaged_settings_are_ignored(home: Path, path: str, text: str) -> None:
    """Without an error: another cluster may be meant."""
    colima(home)
    rancher(home)
    write(home / path, text)
    assert len(find_clusters([])) == 1


def test_every_cluster_is_found_once_beside_its_machines(home: Path) -> None:
    """As `watch` looks nodes up again, on the hosts that it has."""
    colima(home)
    minikube(home)
    clusters = find_clusters([])
    hosts = [node.engine for cluster in clusters for node in cluster.nodes]
    assert [c.name for c in find_clusters(hosts)] == [c.name for c in clusters]


def test_every_provider_has_a_name_of_its_own() -> None:
    """For reports."""
    names = [provider.name for provider in providers()]
    assert len(set(names)) == len(names)
