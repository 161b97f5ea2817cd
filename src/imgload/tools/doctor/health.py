"""What a node's containerd, disk and environment are like, read in two execs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from imgload.clusters.nodes.batch import NOT_FOUND, Group, Output
from imgload.clusters.nodes.cri import NOT_PERMITTED
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.runtime import CONTAINERD, K3S
from imgload.clusters.nodes.survey import CRICTL_CONFIG, NOTHING, Traits, require_containerd
from imgload.core.errors import NodeUnusable

_CTR = ("ctr", "--connect-timeout", "2s", "--timeout", "4s")
_PROXIES = """
for process in 1 $(pidof containerd k3s 2>/dev/null); do
    tr '\\0' '\\n' </proc/$process/environ
done | grep -i '_proxy='
"""
_MIRRORS = """
for folder in /etc/containerd /var/lib/rancher/k3s/agent/etc/containerd; do
    cat $folder/certs.d/*/hosts.toml
done 2>/dev/null | head -c 65536
"""
_RUNTIME: Group = (
    (*_CTR, "version"),
    CRICTL_CONFIG,
    ("crictl", "--version"),
    (*_CTR, "plugins", "ls"),
)
_MACHINE: Group = (
    ("df", "-Pk", CONTAINERD.root),
    ("df", "-Pk", K3S.root),
    ("sh", "-c", _PROXIES),
    ("sh", "-c", _MIRRORS),
)
_SPACE = re.compile(r"^\S.*?\s+(\d{1,18})\s+\d+\s+(\d{1,18})\s+\d+%", re.MULTILINE)
_MIRROR = re.compile(r"^[ \t]*\[host\.[\"'](?:https?://)?([^/\"']+)", re.MULTILINE)
_COLUMNS = 4


@attrs.frozen
class Health:
    """What a node is like.

    Args:
        traits: as a survey reads them.
        space: bytes of the disk with the images, all of them and those that are free; None
            where it is not known.
        crictl: whether it is there.
        plugins: the states of containerd's plugins, by type and name.
        proxies: the environment of the first process and of containerd, names in lower case.
        mirrors: hosts, with ports, that containerd is told to pull from in place of a registry.

    """

    traits: Traits
    space: tuple[int, int] | None
    crictl: bool
    plugins: Mapping[tuple[str, str], str]
    proxies: Mapping[str, str]
    mirrors: tuple[str, ...]


def look(node: Node) -> Health:
    """Read what a node is like.

    Raises:
        NodeNotRunning: when its container is stopped or paused.
        NodeUnusable: when containerd does not answer, or is not what its pods run on.

    """
    node.require_running()
    version, settings, crictl, plugins, *rest = node.run_all(_RUNTIME, _MACHINE)
    _require(node, version, settings)
    survey = node.survey(NOTHING)
    usual, k3s, proxies, mirrors = rest
    runtime = node.runtime or CONTAINERD
    return Health(
        traits=survey.traits,
        space=parse_space((k3s if runtime.root == K3S.root else usual).text),
        crictl=crictl.exit_status not in {NOT_FOUND, NOT_PERMITTED},
        plugins=parse_plugins(plugins.text),
        proxies=parse_proxies(proxies.text),
        mirrors=parse_mirrors(mirrors.text),
    )


def _require(node: Node, version: Output, settings: Output) -> None:
    look_there = f"{node.engine.name} exec {node.name} journalctl -u containerd"
    with node.understanding():
        require_containerd(settings.text)
    if version.exit_status:
        restart = f"{node.engine.name} restart {node.name}"
        raise NodeUnusable(
            f"{node.name}: containerd does not answer", hint=f"{look_there}; or {restart}"
        )


def parse_space(text: str) -> tuple[int, int] | None:
    """Return the bytes of a file system, and those free, of ``df -Pk``."""
    found = _SPACE.search(text)
    return (int(found.group(1)) * 1024, int(found.group(2)) * 1024) if found else None


def parse_plugins(text: str) -> dict[tuple[str, str], str]:
    """Return the states of ``ctr plugins ls``."""
    rows = (line.split() for line in text.splitlines()[1:])
    return {(row[0], row[1]): row[-1] for row in rows if len(row) >= _COLUMNS}


def parse_proxies(text: str) -> dict[str, str]:
    """Return the variables, which Go reads in lower case as well."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.lower(): value for name, _, value in pairs if value}


def parse_mirrors(text: str) -> tuple[str, ...]:
    """Return the hosts of some ``hosts.toml``."""
    return tuple(dict.fromkeys(_MIRROR.findall(text)))
