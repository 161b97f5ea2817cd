"""The files that configure containerd's registries: ``hosts.toml`` and ``config.toml``; no I/O.

containerd reads ``hosts.toml`` at each pull (containerd, docs/hosts.md); no restart is needed.
``config.toml`` is edited as text, to keep comments and layout. The result is parsed and compared.
Two comments enclose the added lines.
"""

from __future__ import annotations

import copy
import re
import tomllib
from typing import Any

from imgload.clusters.nodes.containerd import CRI_PLUGINS
from imgload.core.errors import NodeUnusable
from imgload.oci.jsontext import dig
from imgload.tools.remote_registry.url import RegistryUrl, split_port

MARK = "# Written by imgload registry connect; imgload registry disconnect takes it away."
"""The first line of our hosts.toml files; must not change: it identifies files on nodes."""
_MARK = "# imgload registry connect: "
_WAS = "# was: "
_MIN_VERSION = 2
"""The version for a new configuration: every containerd from 1.3 on reads it."""
_BLOCK = re.compile(
    rf"""
    ^{re.escape(_MARK)}config_path\ =\ "(?P<folder>[^"\n]+)"\n
    (?:{re.escape(_WAS)}(?P<was>.*\n))?
    (?:version\ =\ \d\n)?
    (?:\[plugins\."[\w.]+"\.registry\]\n)?
    \ \ config_path\ =\ "(?P=folder)"\n
    {re.escape(_MARK)}end(?:\n|\Z)
    """,
    re.MULTILINE | re.VERBOSE,
)


def registry_line(url: RegistryUrl) -> str:
    """Return the line of our hosts.toml files that names the registry."""
    return f"# registry: {url}"


def hosts_toml(url: RegistryUrl, name: str) -> str:
    """Return the hosts.toml that makes nodes pull a name's images from a registry.

    For another name than the registry's own it is a mirror: containerd falls back to the name.
    """
    server = f'server = "{url}"\n' if name == url.host else ""
    host = f'[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
    return f"{MARK}\n{registry_line(url)}\n{server}\n{host}"


def folders(name: str) -> tuple[str, str]:
    """Return the folder for a registry's name, and the one that containerd prefers if it exists."""
    host, port = split_port(name)
    return name, f"{host}_{port}_" if port else name


def with_folder(text: str, folder: str) -> str:
    """Return a configuration with CRI's ``config_path`` set to a folder.

    The text is empty if the file does not exist; the folder has no special characters. Raises
    NodeUnusable when the version is not 2, 3 or 4, when there are ``registry.mirrors``, beside
    which containerd refuses ``config_path``, or when the layout cannot be edited.
    """
    document = _parse(text)
    version = document.get("version", 1) if document else _MIN_VERSION
    plugin = CRI_PLUGINS.get(version) if isinstance(version, int) else None
    if plugin is None or version < _MIN_VERSION:
        raise NodeUnusable(f"containerd's configuration has version {version!r:.20}, not 2, 3 or 4")
    if dig(document, "plugins", plugin, "registry", "mirrors"):
        raise NodeUnusable(
            "containerd's configuration has registry.mirrors, beside which it refuses config_path"
        )
    if dig(document, "plugins", plugin, "registry", "config_path") == folder:
        return text
    edited = _insert(text, plugin, folder, [] if document else [f"version = {_MIN_VERSION}"])
    expected: Any = copy.deepcopy(document) or {"version": _MIN_VERSION}
    table = expected
    for key in ("plugins", plugin, "registry"):
        table = table.setdefault(key, {}) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table["config_path"] = folder
    if table is None or _parse(edited) != expected:
        raise NodeUnusable("imgload cannot edit containerd's configuration in this layout")
    return edited


def without_folder(text: str) -> str | None:
    """Return a configuration without the lines of `with_folder`; None if it has none.

    Raises NodeUnusable when somebody changed these lines.
    """
    if _MARK not in text:
        return None
    restored, count = _BLOCK.subn(lambda match: match["was"] or "", text)
    if count != 1 or _MARK in restored:
        raise NodeUnusable(
            "somebody changed the lines that imgload added to containerd's configuration"
        )
    _parse(restored)
    return restored


def _insert(text: str, plugin: str, folder: str, version: list[str]) -> str:
    begin, end = f'{_MARK}config_path = "{folder}"', f"{_MARK}end"
    setting = f'  config_path = "{folder}"'
    lines = text.split("\n")
    header = re.compile(
        rf"""\s*\[\s*plugins\s*\.\s*["']{re.escape(plugin)}["']\s*\.\s*["']?registry["']?\s*\]"""
    )
    start = next((n for n, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        newline = "\n" if text and not text.endswith("\n") else ""
        added = [begin, *version, f'[plugins."{plugin}".registry]', setting, end]
        return f"{text}{newline}" + "".join(f"{line}\n" for line in added)
    for number in range(start + 1, len(lines)):
        if lines[number].lstrip().startswith("["):
            break
        if re.match(r"""\s*["']?config_path["']?\s*=""", lines[number]):
            lines[number : number + 1] = [begin, f"{_WAS}{lines[number]}", setting, end]
            return "\n".join(lines)
    lines[start + 1 : start + 1] = [begin, setting, end]
    return "\n".join(lines)


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise NodeUnusable(f"containerd's configuration cannot be edited: {error}") from error
