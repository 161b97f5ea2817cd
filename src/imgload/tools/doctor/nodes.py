"""Check whether each node can import images, and its pods can use them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from imgload.clusters.nodes import survey
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.batch import NOT_FOUND, Group, Output
from imgload.clusters.nodes.containerd import DEFAULT_SNAPSHOTTER, NOT_PERMITTED
from imgload.clusters.nodes.node import Node, is_containerd_node
from imgload.clusters.nodes.survey import NodeTraits
from imgload.core.errors import ImgloadError, NodeUnusable
from imgload.core.parallel import call_each
from imgload.core.units import size_text
from imgload.engines.base import EngineDescription
from imgload.engines.endpoint import Endpoint
from imgload.tools.doctor.finding import Finding, Status

_SECONDS = 10.0
_LOW_SPACE, _LOW_SHARE, _NO_SPACE = 2 << 30, 0.05, 100 << 20
_SNAPSHOTTER = "io.containerd.snapshotter.v1"
_CRI = ("io.containerd.grpc.v1", "cri")
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
_CTR_VERSION, _CTR_PLUGINS = (*_CTR, "version"), (*_CTR, "plugins", "ls")
_CRICTL_VERSION = ("crictl", "--version")
_RUNTIME: Group = (_CTR_VERSION, _CRICTL_VERSION, _CTR_PLUGINS)
_MACHINE: Group = [("sh", "-c", script) for script in (_PROXIES, _MIRRORS)]
_MIRROR = re.compile(r"^[ \t]*\[host\.[\"'](?:https?://)?([^/\"']+)", re.MULTILINE)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def check_nodes(
    nodes: Sequence[NodeRuntime], hosts: Mapping[Endpoint, EngineDescription]
) -> Iterator[Finding]:
    """Yield the findings about each node; `hosts` are the descriptions of their engines."""
    for node, result in call_each(partial(_check_node, hosts), nodes, _SECONDS):
        if isinstance(result, ImgloadError):
            prefix = "" if result.message.startswith(node.name) else f"{node.name}: "
            hint = result.hint or node.engine.restart_command(node.container.name)
            yield Finding("nodes", "problem", prefix + result.message, hint)
        else:
            yield from result


def _check_node(hosts: Mapping[Endpoint, EngineDescription], runtime: NodeRuntime) -> list[Finding]:
    """Check a node in two execs; NodeError if it is stopped or silent."""
    host = hosts.get(runtime.engine.endpoint)
    if not is_containerd_node(runtime):
        traits = runtime.survey(survey.NOTHING).traits
        (crictl,) = runtime.run_all([_CRICTL_VERSION])
        return [*_described(runtime, traits, crictl), *_machine(runtime, traits, host)]
    node = runtime
    node.require_running()
    version, crictl, plugins, proxies, mirrors = node.run_all(_RUNTIME, _MACHINE)
    if version.exit_status:
        restart = node.engine.restart_command(node.container.name)
        hint = "; or ".join(filter(None, (node.log_command, restart)))
        raise NodeUnusable(f"{node.name}: containerd does not answer", hint=hint)
    traits = node.survey(survey.NOTHING).traits
    return [
        *_described(node, traits, crictl),
        *_containerd(node, traits.snapshotter, parse_plugins(plugins.text)),
        *_machine(node, traits, host),
        *check_proxies(node.name, parse_proxies(proxies.text), parse_mirrors(mirrors.text)),
    ]


def _described(node: NodeRuntime, traits: NodeTraits, crictl: Output) -> Iterator[Finding]:
    """Yield the traits of a node; `crictl` is the output of its version."""
    has_crictl = crictl.exit_status not in {NOT_FOUND, NOT_PERMITTED}
    version = ".".join(map(str, traits.version)) if any(traits.version) else ""
    facts = [f"{traits.runtime} {version}".rstrip(), traits.snapshotter]
    facts += [
        str(traits.platform),
        *(f"{size_text(free)} free" for free in (traits.free,) if free is not None),
    ]
    facts += ["crictl"] if has_crictl else []
    yield Finding("nodes", "ok", f"{node.name}: {', '.join(facts)}")
    if not has_crictl:
        what = f"{node.name} has no crictl: imgload checks {traits.runtime} only, not CRI"
        yield Finding("nodes", "info", what)


def _containerd(node: Node, used: str, states: Mapping[tuple[str, str], str]) -> Iterator[Finding]:
    """Yield the findings about CRI and its snapshotter; `states` are those of the plugins."""
    plugins = {"CRI": _CRI, f"the snapshotter {used}": (_SNAPSHOTTER, used)}
    for name, key in plugins.items() if states else ():
        state = states.get(key, "missing")
        if state != "ok":
            what = f"{node.name}: {name} is {state} in containerd: no pod can run"
            see = node.exec_command("ctr", "plugins", "ls", "-d", f"id=={key[1]}")
            hint = f"see why: {see}"
            yield Finding("nodes", "problem", what, hint)
    if used != DEFAULT_SNAPSHOTTER:
        what = f"{node.name} unpacks with {used}, but ctr defaults to {DEFAULT_SNAPSHOTTER}"
        manual = f"ctr -n k8s.io images import --snapshotter={shlex.quote(used)} FILE"
        yield Finding("nodes", "info", f"{what}; imgload uses {used}", f"by hand: {manual}")


def _machine(
    node: NodeRuntime, traits: NodeTraits, host: EngineDescription | None
) -> Iterator[Finding]:
    total, free = traits.total or 0, traits.free
    if free is not None and free < max(_LOW_SPACE, total * _LOW_SHARE):
        what = f"{node.name} has {size_text(free)} of {size_text(total)} left for images"
        status: Status = "problem" if free < _NO_SPACE else "warning"
        yield Finding("nodes", status, what, node.disk_hint)
    if warning := node.disk_warning(traits):
        yield Finding("nodes", "warning", *warning)
    machine = host.platform if host else None
    if machine and not machine.runs(traits.platform):
        what = f"{node.name} is {traits.platform} on a {machine} machine: it runs under emulation"
        hint = f"create the cluster from a node image for {machine}"
        yield Finding("nodes", "warning", what, hint)


def parse_plugins(text: str) -> dict[tuple[str, str], str]:
    """Return the states in ``ctr plugins ls``, whose rows are TYPE ID PLATFORMS STATUS."""
    rows = (line.split() for line in text.splitlines()[1:])
    return {(row[0], row[1]): row[-1] for row in rows if len(row) > 3}  # noqa: PLR2004


def parse_proxies(text: str) -> dict[str, str]:
    """Return the variables that are set, in lower case: Go reads either case."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.lower(): value for name, _, value in pairs if value}


def parse_mirrors(text: str) -> tuple[str, ...]:
    """Return the hosts in ``hosts.toml`` files."""
    return tuple(dict.fromkeys(_MIRROR.findall(text)))


def check_proxies(
    node: str, proxies: Mapping[str, str], mirrors: Sequence[str]
) -> Iterator[Finding]:
    """Yield the effect of a node's proxy variables (in lower case) on pulls from its mirrors."""
    used = {name: proxies[name] for name in ("http_proxy", "https_proxy") if proxies.get(name)}
    if not used:
        return
    shown = ", ".join(f"{name.upper()}={_without_password(url)}" for name, url in used.items())
    proxied = [host for host in mirrors if not is_excepted(host, proxies.get("no_proxy", ""))]
    recreate = "create the cluster again: kind takes it from the environment"
    if loopback := [host for host in map(_host, used.values()) if host in _LOOPBACK]:
        what = f"{node} pulls through a proxy at {loopback[0]}, which is the node itself ({shown})"
        hint = f"use an address that nodes can reach; {recreate}"
        yield Finding("nodes", "warning", what, hint)
    elif proxied:
        what = f"{node} uses a proxy ({shown}) for pulls from {', '.join(proxied)}"
        names = shlex.quote(",".join(map(_host, proxied)))
        yield Finding("nodes", "warning", what, f"add {names} to NO_PROXY; {recreate}")
    else:
        yield Finding("nodes", "info", f"{node} pulls through a proxy ({shown})")


def is_excepted(host: str, no_proxy: str) -> bool:
    """Whether requests to a host bypass the proxy, by the rules of Go, which containerd uses.

    ``NO_PROXY`` lists names, which include their subdomains, addresses, networks, and ``*``;
    loopback never goes through a proxy (golang.org/x/net/http/httpproxy).
    """
    name = _host(host)
    entries = filter(None, (entry.strip().lower() for entry in no_proxy.split(",")))
    return name in _LOOPBACK or any(_covers(entry, name, host.lower()) for entry in entries)


def _covers(entry: str, name: str, host: str) -> bool:
    if entry in {"*", name, host}:
        return True
    try:
        return ip_address(name) in ip_network(entry, strict=False)
    except ValueError:
        return name.endswith(f".{entry.removeprefix('*').removeprefix('.')}")


def _host(url: str) -> str:
    """Return the host of a URL, or of ``host:port``."""
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
