"""What containerd reads of a registry: ``hosts.toml`` below its ``config_path``; pure.

containerd reads it anew at each pull (containerd, docs/hosts.md), so that nothing is restarted.
"""

from __future__ import annotations

from imgload.tools.remote_registry.url import RegistryUrl, split_port

MARK = "# Written by imgload registry connect; imgload registry disconnect takes it away."
_HOSTS = """\
{mark}
{registry}
{server}
[host."{url}"]
  capabilities = ["pull", "resolve"]
"""


def registry_line(url: RegistryUrl) -> str:
    """Return the line by which a file of ours is known to be about a registry."""
    return f"# registry: {url}"


def hosts_toml(url: RegistryUrl, name: str) -> str:
    """Return the file that makes a registry answer for a name.

    As a mirror it is asked first, and the registry of that name afterwards.
    """
    server = f'server = "{url}"\n' if name == url.host else ""
    return _HOSTS.format(mark=MARK, registry=registry_line(url), server=server, url=url)


def folders(name: str) -> tuple[str, str]:
    """Return the folder for a name, and the one that containerd prefers if it is there."""
    host, port = split_port(name)
    return name, f"{host}_{port}_" if port else name
