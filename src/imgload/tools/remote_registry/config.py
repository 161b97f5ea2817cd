"""containerd's configuration with CRI's ``config_path`` set, and without it again; pure.

The text is edited in place, so that comments and layout stay, and the result is parsed and
compared. What is added stands between two comments, by which it is found again.
"""

from __future__ import annotations

import copy
import re
import tomllib
from typing import Any

from imgload.clusters.nodes.containerd import CRI_PLUGINS
from imgload.core.errors import NodeUnusable
from imgload.engines.discovery.config_files import dig

_MARK = "# imgload registry connect: "
_WAS = "# was: "
_OLDEST = 2
"""The version of a configuration that was empty, too: every containerd from 1.3 on reads it."""
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


def with_folder(text: str, folder: str) -> str:
    """Return a configuration in which CRI's ``config_path`` is a folder.

    Args:
        text: of containerd's ``config.toml``; empty where there is none.
        folder: an absolute path of plain characters.

    Raises:
        NodeUnusable: when it has another version than 2, 3 or 4, or registries configured the old
            way, beside which containerd refuses ``config_path``; or when it cannot be edited.

    """
    document = _parse(text)
    version = document.get("version", 1) if document else _OLDEST
    plugin = CRI_PLUGINS.get(version) if isinstance(version, int) else None
    if plugin is None or version < _OLDEST:
        raise NodeUnusable(f"containerd's configuration has version {version!r:.20}, not 2, 3 or 4")
    if dig(document, "plugins", plugin, "registry", "mirrors"):
        raise NodeUnusable(
            "containerd's configuration has registry.mirrors, beside which it refuses config_path"
        )
    if dig(document, "plugins", plugin, "registry", "config_path") == folder:
        return text
    edited = _edited(text, plugin, folder, [] if document else [f"version = {_OLDEST}"])
    expected: Any = copy.deepcopy(document) or {"version": _OLDEST}
    table = expected
    for key in ("plugins", plugin, "registry"):
        table = table.setdefault(key, {}) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table["config_path"] = folder
    if table is None or _parse(edited) != expected:
        raise NodeUnusable("containerd's configuration is laid out in a way imgload cannot edit")
    return edited


def without_folder(text: str) -> str | None:
    """Return a configuration without what `with_folder` added; None where it added nothing.

    Raises:
        NodeUnusable: when the lines that it added were changed.

    """
    if _MARK not in text:
        return None
    restored, count = _BLOCK.subn(lambda match: match["was"] or "", text)
    if count != 1 or _MARK in restored:
        raise NodeUnusable(
            "the lines that imgload added to containerd's configuration were changed"
        )
    _parse(restored)
    return restored


def _edited(text: str, plugin: str, folder: str, version: list[str]) -> str:
    begin, setting, end = (
        f'{_MARK}config_path = "{folder}"',
        f'  config_path = "{folder}"',
        f"{_MARK}end",
    )
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
