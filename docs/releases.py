"""The documentation site: a folder for each release, and a start page for the newest."""

from __future__ import annotations

import json
from pathlib import Path

from packaging.version import InvalidVersion, Version

_REDIRECT = """<!doctype html>
<meta charset="utf-8">
<title>imgload</title>
<meta http-equiv="refresh" content="0; url={0}/index.html">
<a href="{0}/index.html">imgload {0}</a>
"""


def list_versions(folder: Path) -> list[str]:
    """Write the list of the versions in a folder, which every page shows, and the start page.

    Returns:
        The versions, the newest first; releases precede pre-releases.

    """
    found = [version for path in folder.iterdir() if (version := _version(path))]
    names = [str(v) for v in sorted(found, key=lambda v: (not v.is_prerelease, v), reverse=True)]
    (folder / "versions.js").write_text(f"const versions = {json.dumps(names)};\n")
    (folder / "index.html").write_text(_REDIRECT.format(names[0]))
    return names


def _version(path: Path) -> Version | None:
    try:
        return Version(path.name) if (path / "index.html").is_file() else None
    except InvalidVersion:
        return None
