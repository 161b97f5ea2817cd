"""Check whether a node's proxy settings break pulls from registries on this machine.

containerd follows Go's rules (golang.org/x/net/http/httpproxy): ``NO_PROXY`` lists names, which
include their subdomains, addresses, networks, and ``*``; loopback never goes through a proxy.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from imgload.tools.doctor.finding import Finding

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def check_proxies(
    node: str, proxies: Mapping[str, str], mirrors: Sequence[str]
) -> Iterator[Finding]:
    """Yield the effect of a node's proxies on its pulls.

    Args:
        node: its name.
        proxies: the variables of its environment, in lower case.
        mirrors: the hosts that its ``hosts.toml`` files pull from.

    """
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
    """Whether requests to a host bypass the proxy."""
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
