"""Whether a node's proxy settings break pulls from registries on this machine.

containerd uses Go's rules (golang.org/x/net/http/httpproxy): ``NO_PROXY`` has names, which mean
their subdomains as well, addresses, networks, and ``*``; loopback is never asked by a proxy.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from imgload.tools.doctor.finding import Finding

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def check_proxies(
    node: str, proxies: Mapping[str, str], mirrors: Sequence[str]
) -> Iterator[Finding]:
    """Yield what the proxies of a node mean for its pulls.

    Args:
        node: its name.
        proxies: the variables of its environment, in lower case.
        mirrors: hosts that it is told to pull from.

    """
    used = {name: proxies[name] for name in ("http_proxy", "https_proxy") if proxies.get(name)}
    if not used:
        return
    shown = ", ".join(f"{name.upper()}={_without_password(url)}" for name, url in used.items())
    passed = [host for host in mirrors if not is_excepted(host, proxies.get("no_proxy", ""))]
    again = "make the cluster again with it: kind takes it from the environment"
    if inside := [url for url in used.values() if _host(url) in _LOOPBACK]:
        what = f"{node} pulls through a proxy at {_host(inside[0])}, which there is the node itself"
        yield Finding("nodes", "warning", f"{what} ({shown})", f"name it as nodes see it; {again}")
    elif passed:
        what = f"{node} asks a proxy ({shown}) for what it pulls from {', '.join(passed)}"
        names = ",".join(_host(host) for host in passed)
        yield Finding("nodes", "warning", what, f"put {shlex.quote(names)} into NO_PROXY; {again}")
    else:
        yield Finding("nodes", "info", f"{node} pulls through a proxy ({shown})")


def is_excepted(host: str, no_proxy: str) -> bool:
    """Whether a host is asked directly."""
    name = _host(host)
    if name in _LOOPBACK:
        return True
    parts = (part.strip().lower() for part in no_proxy.split(","))
    return any(_covers(part, name, host.lower()) for part in parts if part)


def _covers(part: str, name: str, host: str) -> bool:
    if part == "*" or part in {name, host}:
        return True
    if "/" in part:
        return _is_within(name, part)
    domain = part.removeprefix("*").removeprefix(".")
    return name.endswith(f".{domain}")


def _is_within(name: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _host(url: str) -> str:
    """Return the host of a URL, or of ``host:port``."""
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _without_password(url: str) -> str:
    scheme, there, rest = url.rpartition("://")
    return f"{scheme}{there}{rest.rpartition('@')[2]}"
