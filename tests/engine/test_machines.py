"""Nodes that ssh reaches: by their address, and those of Colima, Lima, minikube and others.

The machine is a container with an ssh server, sudo and containerd; imgload connects to its address.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import imgload
from tests.engine.aftermath import Setup, settled, until
from tests.engine.conftest import Images, cases, cri_id, forget, records, unique
from tests.engine.remote import open_folder
from tests.engine.test_errors import run
from tests.lab import Lab
from tests.lab.shape import BareK3s, Shape
from tests.lab.vm import ADMIN, GUEST, Unlabelled, Vm

SSH_CONFIG = """\
Host lima-{instance}
  IdentityFile "{folder}/user"
  User {user}
  Hostname {address}
  UserKnownHostsFile {folder}/known_hosts
  ControlMaster auto
  ControlPath "{folder}/ssh.sock"
  ControlPersist yes
"""


def start(lab: Lab, name: str, shape: Shape) -> Iterator[Vm]:
    """Start a machine, and remove it at the end."""
    made = lab.make_cluster(name=name, engine="docker", shape=shape, crictl=True)
    with open_folder() as folder:
        yield Vm.start(made.nodes[0], folder)
    made.remove()


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Vm]:
    """A machine with containerd, as a kubeadm node or Colima's."""
    yield from start(lab, "lab-vm", Unlabelled())


@pytest.fixture(scope="module")
def k3s(lab: Lab) -> Iterator[Vm]:
    """A machine with k3s, as Lima's and Rancher Desktop's."""
    yield from start(lab, "lab-vm3", BareK3s())


@pytest.fixture
def vm(machine: Vm, monkeypatch: pytest.MonkeyPatch) -> Vm:
    """Put an ssh that knows the machine first on PATH, in place of a user's settings."""
    monkeypatch.setenv("PATH", machine.path)
    return machine


def ssh_processes(vm: Vm) -> list[str]:
    """Return the running ssh clients to a machine."""
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True)
    lines = (
        line for line in listed.stdout.splitlines() if line.startswith(("ssh ", "/usr/bin/ssh"))
    )
    return [line for line in lines if vm.address in line]


@pytest.mark.parametrize(
    "case",
    cases(
        {
            "docker by sudo": ("docker", ADMIN),
            "podman as root": ("podman", "root"),
            "docker28 as root": ("docker28", "root"),
        },
        ["docker by sudo"],
    ),
)
def test_a_build_and_its_rebuild_are_loaded_by_ssh(
    lab: Lab, images: Images, vm: Vm, case: tuple[str, str]
) -> None:
    """By one login for each run; a rebuild sends its layer only, and CRI has the image ID."""
    own, tag, address = lab.engine(case[0]), unique(), vm.url(case[1])
    options = ("--node", address, "--from", own.url)
    name = f"docker.io/library/{tag}"
    images.build(own, tag, os.urandom(3 << 20))
    before = logins(vm)
    first = report(run("load", tag, *options, "-o", "json"))
    assert (first["action"], first["ok"]) == ("full", True)
    again = report(run("load", tag, *options, "-o", "json"))
    assert (again["action"], again["transport"]) == ("present", None)
    assert logins(vm) == before + 2
    document = json.loads(run("verify", tag, *options, "-o", "json").stdout)
    assert cri_id(vm.node, name) == document["images"][0]["image_id"]
    own.build(tag, base=tag, layers=[{"line": os.urandom(100)}])
    rebuilt = report(run("load", tag, *options, "-o", "json"))
    assert rebuilt["action"] == "delta"
    assert rebuilt["bytes_sent"] < 100_000
    assert run("verify", tag, *options, "--deep").returncode == 0
    assert name in run("images", tag, "--node", address).stdout
    pruned = run("prune", "--yes", "--keep", "0", "--node", address, tag.partition(":")[0])
    assert pruned.returncode == 0, pruned.stderr
    assert name not in records(vm.node)
    assert ssh_processes(vm) == []


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the result of the only node."""
    [image] = json.loads(done.stdout)["images"]
    [node] = image["nodes"]
    return dict(node)


def logins(vm: Vm) -> int:
    """Return the number of logins."""
    return vm.node.exec("cat", "/var/log/sshd.log").count("Accepted publickey")


def test_a_machine_that_cannot_be_used_is_explained(
    lab: Lab, images: Images, vm: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rights, nothing at the address, another key; the other nodes are loaded."""
    tag, node = unique(), lab.cluster("lab-d21").nodes[0]
    image_id = images.build(lab.docker, tag)
    closed = f"{vm.url()}:1"
    names = ("--node", vm.url(GUEST), "--node", closed, "--node", node.name)
    done = run("load", tag, *names, "-o", "json")
    assert done.returncode == 1
    [image] = json.loads(done.stdout)["images"]
    by_name = {entry["node"]: entry for entry in image["nodes"]}
    assert by_name[node.name]["ok"]
    assert cri_id(node, f"docker.io/library/{tag}") == image_id
    denied, refused = by_name[vm.url(GUEST)]["error"], by_name[closed]["error"]
    assert "sudo: a password is required" in denied["message"]
    assert "/etc/sudoers.d/imgload" in denied["hint"]
    assert "Connection refused" in refused["message"]
    assert f"ssh -p 1 root@{vm.address} true" in refused["hint"]
    (tmp_path / "ssh").write_text('#!/bin/sh\nexec /usr/bin/ssh -F /dev/null "$@"\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    unknown = run("load", tag, "--node", vm.url())
    assert "Host key verification failed" in unknown.stdout + unknown.stderr
    assert records(vm.node) & {f"docker.io/library/{tag}"} == set()
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize(
    "end", cases({"ssh": "ssh", "imgload": "imgload", "sshd": "sshd"}, ["ssh"])
)
def test_an_import_that_is_cut_off_leaves_nothing(
    lab: Lab, images: Images, vm: Vm, tmp_path: Path, end: str
) -> None:
    """ssh, imgload or the server's process ends; the next run loads the image."""
    tag, temp = unique(), tmp_path / "temp"
    temp.mkdir()
    image_id = images.build(lab.docker, tag, os.urandom(120 << 20))
    setup = Setup(vm.node, (lab.docker,), temp)
    before, folders = setup.state(), run_folders()
    command = [sys.executable, "-m", "imgload", "load", tag, "--node", vm.url(ADMIN)]
    environ = {**os.environ, "TMPDIR": str(temp)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as loading:
        until(lambda: "images import" in vm.node.exec("ps", "-o", "args"), 60)
        if end == "imgload":
            loading.kill()
        elif end == "ssh":
            subprocess.run(["pkill", "-KILL", "-P", str(loading.pid), "ssh"], check=True)
        else:
            find = f"ps -o pid,args | grep '[s]shd: {ADMIN}' | awk '{{ print $1 }}'"
            vm.node.exec("sh", "-c", f"kill -9 $({find})")
        output, _ = loading.communicate(timeout=60)
    assert loading.returncode == (-signal.SIGKILL if end == "imgload" else 1), output
    assert f"docker.io/library/{tag}" not in records(vm.node)
    if end == "imgload":
        until(lambda: ssh_processes(vm) == [], 20)
        assert run("clusters", TMPDIR=str(temp)).returncode == 0  # removes its folder
    state = settled(setup, before)
    assert state.running == before.running
    assert state.folders == before.folders
    assert ssh_processes(vm) == []
    assert list(temp.iterdir()) == []
    assert run_folders() <= folders
    [image] = imgload.load(tag, nodes=[vm.url(ADMIN)], source="docker").images
    assert str(image.image_id) == image_id == cri_id(vm.node, f"docker.io/library/{tag}")
    forget(vm.node, f"docker.io/library/{tag}")


def run_folders() -> set[Path]:
    """Return imgload's folders for sockets: the temporary folder's path is too long for them."""
    return set(Path("/tmp").glob("imgload-run-*"))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def instance(folder: Path, vm: Vm) -> None:
    """Write the files of a running Lima instance that leads to a machine."""
    about = {"instance": folder.name, "folder": vm.folder, "address": vm.address, "user": ADMIN}
    write(folder / "ssh.config", SSH_CONFIG.format(**about))
    write(folder / "ha.pid", str(os.getpid()))


def home_of(tool: str, home: Path, vm: Vm) -> str:
    """Fill a home folder as a tool does for a machine; return the kube context."""
    if tool == "colima":
        instance(home / ".colima/_lima/colima-dev", vm)
        settings = "runtime: containerd\nkubernetes:\n  enabled: true\n"
        write(home / ".colima/_lima/colima-dev/colima.yaml", settings)
        return "colima-dev"
    if tool == "lima":
        instance(home / ".lima/k3s", vm)
        write(home / ".lima/k3s/copied-from-guest/kubeconfig.yaml", "current-context: default\n")
        return "default"
    if tool == "rancher-desktop":
        instance(home / ".local/share/rancher-desktop/lima/0", vm)
        engine = {"containerEngine": {"name": "containerd"}, "kubernetes": {"enabled": True}}
        write(home / ".config/rancher-desktop/settings.json", json.dumps(engine))
        return "rancher-desktop"
    profile = {"Driver": "kvm2", "Nodes": [{"Name": "", "ControlPlane": True}]}
    write(home / ".minikube/profiles/vm/config.json", json.dumps(profile))
    driver = {"IPAddress": vm.address, "SSHUser": ADMIN, "SSHPort": 22}
    driver["SSHKeyPath"] = str(vm.folder / "user")
    write(home / ".minikube/machines/vm/config.json", json.dumps({"Driver": driver}))
    return "vm"


TOOLS = ("colima", "lima", "rancher-desktop", "minikube")


@pytest.fixture(params=cases({tool: tool for tool in TOOLS}, ["lima", "minikube"]))
def of_tool(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Vm]:
    """Return a tool and its machine, which only files in the home folder lead to."""
    tool = str(request.param)
    vm: Vm = request.getfixturevalue("k3s" if tool in {"lima", "rancher-desktop"} else "machine")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "LIMA_HOME", "COLIMA_HOME", "MINIKUBE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    context, kubeconfig = home_of(tool, tmp_path, vm), tmp_path / "kubeconfig"
    kubeconfig.write_text(f"current-context: {context}\n")
    if tool == "lima":
        kubeconfig = tmp_path / ".lima/k3s/copied-from-guest/kubeconfig.yaml"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return tool, vm


def test_the_kube_context_selects_the_machine_of_a_tool(
    lab: Lab, images: Images, of_tool: tuple[str, Vm]
) -> None:
    """By the files of the tool alone; `clusters` lists it."""
    tool, vm = of_tool
    tag = unique()
    image_id = images.build(lab.docker, tag)
    [image] = imgload.load(tag, source="docker").images
    assert image.nodes[0].ok
    assert cri_id(vm.node, f"docker.io/library/{tag}") == image_id == str(image.image_id)
    listed = {c["tool"]: c for c in json.loads(run("clusters", "-o", "json").stdout)["clusters"]}
    assert listed[tool]["current"]
    assert [node["state"] for node in listed[tool]["nodes"]] == ["running"]
    assert not list(vm.folder.glob("ssh.sock*")), "the settings' own connection stays unused"
    forget(vm.node, f"docker.io/library/{tag}")


def test_no_engine_is_needed_for_an_archive(
    lab: Lab, images: Images, vm: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for users of nerdctl, who have no engine's socket."""
    tag = unique()
    image_id = images.build(lab.docker, tag)
    lab.docker.cli("save", tag, "-o", tmp_path / "app.tar")
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/none.sock")
    done = run("load", tag, "--from", str(tmp_path / "app.tar"), "--node", vm.url())
    assert done.returncode == 0, done.stderr
    assert cri_id(vm.node, f"docker.io/library/{tag}") == image_id
    assert tag.partition(":")[0] in run("images", "--node", vm.url()).stdout
    missing = run("load", tag, "--from", str(tmp_path / "app.tar"))
    assert missing.returncode == 5
    assert "none.sock" in missing.stderr
    forget(vm.node, f"docker.io/library/{tag}")


def test_a_second_command_needs_no_login(vm: Vm) -> None:
    """It takes milliseconds; the limit allows for a busy machine."""
    machine = imgload.select_nodes([], None, [vm.url(ADMIN)])[0]
    machine.engine.exec("", ["true"])
    before, started = logins(vm), time.monotonic()
    for _ in range(5):
        assert machine.engine.exec("", ["id", "-u"]).stdout == b"0\n"
    assert time.monotonic() - started < 5
    assert logins(vm) == before
    del machine
    until(lambda: ssh_processes(vm) == [], 10)
