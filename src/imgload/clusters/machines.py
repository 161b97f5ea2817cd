"""The machines in which Colima, Lima, Rancher Desktop and minikube run a node.

Their tools write files below the home folder that contain how to log in by ssh. A file that another
user could change is ignored.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from imgload.clusters.kubeconfig import read_scalars
from imgload.core.errors import ArchiveInvalid
from imgload.core.parallel import in_parallel
from imgload.engines.base import Container
from imgload.engines.discovery.candidates import is_trusted
from imgload.engines.machine import SshMachine
from imgload.engines.ssh import Login
from imgload.oci.document import dig, load_json, text_at

_MAX_BYTES = 1 << 20
_MAX_ENTRIES = 50
_SSH_PORT = 22
_CONNECT_SECONDS = 0.3
_HOST = re.compile(r"^Host ([\w.-]+)[ \t]*$", re.MULTILINE | re.ASCII)
_MACHINE = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_NOT_MACHINES = {"", "docker", "podman", "none"}
"""minikube's drivers whose nodes are containers, or this machine."""


@attrs.frozen
class Profile:
    """The settings of Colima's profile, or of Rancher Desktop, that decide where images belong."""

    runtime: str
    has_kubernetes: bool


def lima_machines(home: Path) -> Iterator[SshMachine]:
    """Yield Lima's instances of its template ``k3s``: they have a copied kubeconfig."""
    for folder in _folders(home):
        if (folder / "copied-from-guest" / "kubeconfig.yaml").exists():
            start = f"limactl start {shlex.quote(folder.name)}"
            yield from _lima_instance("lima", folder.name, folder, start)


def colima_machines(home: Path) -> Iterator[SshMachine]:
    """Yield the machines of Colima's profiles that run Kubernetes with containerd."""
    for folder in _folders(home / "_lima"):
        context, name = folder.name, folder.name.removeprefix("colima-")
        profile = colima_profile(home, context)
        if profile and profile.has_kubernetes and profile.runtime == "containerd":
            start = "colima start" + ("" if name == "colima" else f" {shlex.quote(name)}")
            yield from _lima_instance("colima", context, folder, start)


def colima_profile(home: Path, context: str) -> Profile | None:
    """Return the settings of the profile with a kube context, as it runs or last ran, or None."""
    name = "default" if context == "colima" else context.removeprefix("colima-")
    for path in (home / "_lima" / context / "colima.yaml", home / name / "colima.yaml"):
        with suppress(OSError, ValueError):
            settings = read_scalars(_read(path))
            enabled = settings.get(("kubernetes", "enabled")) == "true"
            return Profile(settings.get(("runtime",)) or "docker", enabled)
    return None


def rancher_machines(data: Path, settings: Path) -> Iterator[SshMachine]:
    """Yield Rancher Desktop's machine, if it runs Kubernetes with containerd."""
    profile = rancher_profile(settings)
    if profile and profile.has_kubernetes and profile.runtime == "containerd":
        name = "rancher-desktop"
        yield from _lima_instance(name, name, data / "lima" / "0", "rdctl start")


def rancher_profile(settings: Path) -> Profile | None:
    """Return the settings of Rancher Desktop in a folder, or None."""
    document = _document(settings / "settings.json")
    engine = dig(document, "containerEngine", "name") or dig(
        document, "kubernetes", "containerEngine"
    )
    enabled = dig(document, "kubernetes", "enabled") is not False
    return Profile(str(engine), enabled) if document else None


def _lima_instance(tool: str, cluster: str, folder: Path, start: str) -> Iterator[SshMachine]:
    """Yield the instance in a folder, unless its ssh settings cannot be used.

    The name of its host is in them (lima, pkg/instance/hostname).
    """
    path = folder / "ssh.config"
    with suppress(OSError, ValueError):
        if host := _HOST.search(_read(path).decode()):
            login = Login.parse(f"ssh://{host[1]}", config=str(path))
            state = "running" if _runs(folder / "ha.pid") else "stopped"
            node = Container("", cluster, state, _labels(tool, cluster, "server"))
            yield SshMachine.of(login, node, tool, start)


def _runs(pid_file: Path) -> bool:
    """Return whether Lima's host agent runs, which ends with the machine."""
    try:
        os.kill(int(_read(pid_file)), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def minikube_driver(home: Path, profile: str) -> str:
    """Return the driver of minikube's profile; empty if it is unknown."""
    return text_at(_document(home / "profiles" / profile / "config.json"), "Driver")


def minikube_machines(home: Path) -> list[SshMachine]:
    """Return the machines of minikube's profiles with the drivers for VMs, and the driver ssh."""
    calls: list[Callable[[], SshMachine]] = []
    for folder in _folders(home / "profiles"):
        profile = _document(folder / "config.json")
        driver, nodes = text_at(profile, "Driver"), dig(profile, "Nodes")
        if driver in _NOT_MACHINES or not isinstance(nodes, list):
            continue
        for node in nodes[:_MAX_ENTRIES]:
            suffix = text_at(node, "Name")  # empty for the first node
            name = f"{folder.name}-{suffix}" if suffix and len(nodes) > 1 else folder.name
            if not _MACHINE.fullmatch(name):
                continue
            role = "control-plane" if dig(node, "ControlPlane") is True else "worker"
            with suppress(ValueError):
                login = _minikube_login(home / "machines" / name, is_vm=driver != "ssh")
                labels = _labels("minikube", folder.name, role)
                calls.append(partial(_minikube_machine, login, name, labels))
    return in_parallel(calls) if calls else []


def _minikube_login(folder: Path, *, is_vm: bool) -> Login:
    """Return how to log in to a machine of libmachine's; ValueError if that is not valid.

    minikube itself checks no host key of its VMs (pkg/minikube/sshutil).
    """
    driver = dig(_document(folder / "config.json"), "Driver")
    host, user, key = (text_at(driver, field) for field in ("IPAddress", "SSHUser", "SSHKeyPath"))
    port = dig(driver, "SSHPort")
    if not host or not isinstance(port, int):
        raise ValueError(f"{folder} has no address")
    key = key or str(folder / "id_rsa")
    if not os.path.isabs(key):  # noqa: PTH117 - as a text
        raise ValueError(f"{key} is not an absolute path")
    host = f"[{host}]" if ":" in host else host
    url = f"ssh://{user or 'docker'}@{host}:{port or _SSH_PORT}"
    return Login.parse(url, identity=key, is_vm=is_vm)


def _minikube_machine(login: Login, name: str, labels: Mapping[str, str]) -> SshMachine:
    """Return a machine, with the state that it has now."""
    try:
        socket.create_connection((login.host, login.port or _SSH_PORT), _CONNECT_SECONDS).close()
        state = "running"
    except OSError:
        state = "stopped"
    start = f"minikube start -p {shlex.quote(labels['imgload-cluster'])}"
    return SshMachine.of(login, Container("", name, state, labels), "minikube", start)


def _labels(tool: str, cluster: str, role: str) -> Mapping[str, str]:
    """Return the labels by which a provider finds the node again."""
    return {"imgload-tool": tool, "imgload-cluster": cluster, "imgload-role": role}


def _folders(parent: Path) -> list[Path]:
    """Return the subfolders that a tool made for instances and profiles."""
    with suppress(OSError):
        entries = sorted(parent.iterdir())[:_MAX_ENTRIES]
        return [path for path in entries if path.name[0] not in "._-" and path.is_dir()]
    return []


def _document(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError, ArchiveInvalid):
        document = load_json(_read(path))
        return document if isinstance(document, dict) else {}
    return {}


def _read(path: Path) -> bytes:
    """Return the content of a file; OSError if other users could change it, or it is too large."""
    if not is_trusted(path):
        raise PermissionError(f"other users could change {path}")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise OSError(f"{path} is too large")
    return data
