"""Editing containerd's config.toml, reverting the edit, and the script that replaces it."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from imgload.clusters.nodes.containerd import CRI_PLUGINS
from imgload.core.errors import NodeUnusable
from imgload.engines.base import ExecResult
from imgload.oci.document import dig
from imgload.tools.remote_registry import config
from imgload.tools.remote_registry.config import with_folder, without_folder

FOLDER = "/etc/containerd/certs.d"
GRPC, IMAGES = CRI_PLUGINS[2], CRI_PLUGINS[3]
LAYOUTS = {
    "empty": (GRPC, ""),
    "comments only": (GRPC, "# nothing is set\n"),
    "no table": (GRPC, 'version = 2\nroot = "/var/lib"\n'),
    "no newline at the end": (IMAGES, "version = 3\n[grpc]\n  gid = 0"),
    "a table": (IMAGES, f'version = 3\n\n[plugins."{IMAGES}".registry] # ours\n\n[grpc]\n'),
    "a table, last": (IMAGES, f'version = 4\n[plugins."{IMAGES}".registry]\n'),
    "unset": (GRPC, f"version = 2\n  [plugins.'{GRPC}'.registry]\n    config_path = \"\" # no\n"),
    "two folders": (
        IMAGES,
        f"version = 3\n[plugins.'{IMAGES}'.registry]\nheaders = {{}}\nconfig_path = '/a:/b'\n",
    ),
    "only tables below": (
        GRPC,
        f'version = 2\n[plugins."{GRPC}".registry.configs."a".auth]\nusername = "b"\n',
    ),
    "another's config_path": (
        IMAGES,
        'version = 3\n[plugins."io.containerd.transfer.v1.local"]\nconfig_path = "/t"\n',
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_folder_sets_one_value_and_without_folder_restores_the_text(layout: str) -> None:
    """All other lines stay."""
    plugin, text = LAYOUTS[layout]
    edited = with_folder(text, FOLDER)
    document = tomllib.loads(edited)
    assert dig(document, "plugins", plugin, "registry", "config_path") == FOLDER
    restored = without_folder(edited)
    assert restored is not None
    assert restored.rstrip("\n") == text.rstrip("\n")
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("config_path =")]
    assert set(kept) <= set(edited.splitlines())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_folder_is_idempotent(layout: str) -> None:
    edited = with_folder(LAYOUTS[layout][1], FOLDER)
    assert with_folder(edited, FOLDER) == edited


def test_with_folder_adds_nothing_where_the_user_has_set_it() -> None:
    text = f'version = 3\n[plugins."{IMAGES}".registry]\nconfig_path = "{FOLDER}"\n'
    assert with_folder(text, FOLDER) == text
    assert without_folder(text) is None


@pytest.mark.parametrize(
    "text",
    [
        '[plugins.cri.registry]\nconfig_path = ""\n',
        "version = 1\n",
        "version = 5\n",
        "version = '3'\n",
        "version = [2]\n",
        "not toml",
        "a = " + "[" * 5000,
        f'version = 2\n[plugins."{GRPC}".registry.mirrors."a"]\nendpoint = ["http://b"]\n',
        f'version = 3\n[plugins."{IMAGES}"]\nregistry.config_path = ""\n',
        f'version = 3\nplugins = {{ "{IMAGES}" = {{ registry = {{}} }} }}\n',
        f'version = 3\n[plugins."{IMAGES}"]\nregistry = 1\n',
        f'version = 3\na = """\n[plugins."{IMAGES}".registry]\n"""\n',
    ],
)
def test_with_folder_refuses_other_versions_mirrors_and_unusual_layouts(text: str) -> None:
    with pytest.raises(NodeUnusable):
        with_folder(text, FOLDER)


@pytest.mark.parametrize(("old", "new"), [(f'"{FOLDER}"\n#', '"/other"\n#'), ("connect: end", "")])
def test_without_folder_refuses_lines_that_were_changed(old: str, new: str) -> None:
    """The user may need them."""
    edited = with_folder("version = 3\n", FOLDER)
    assert old in edited
    with pytest.raises(NodeUnusable):
        without_folder(edited.replace(old, new))


@pytest.mark.parametrize("old", ["old\n", ""])
def test_script_reports_the_error_and_not_the_warnings_of_containerd(
    tmp_path: Path, old: str
) -> None:
    """containerd 2.2 prints deprecation warnings first. A node may have no configuration."""
    program = tmp_path / "containerd"
    program.write_text(
        "#!/bin/sh\n"
        'echo \'time="2026-11-29T03:00:00Z" level=warning msg="it is deprecated"\' >&2\n'
        "echo 'containerd: no such plugin' >&2\n"
        "exit 1\n"
    )
    program.chmod(0o755)
    file = tmp_path / "config.toml"
    if old:
        file.write_text(old)
    text = "".join(vars(config)[part] for part in ("_LISTENER", "_CHANGE", "_SET"))
    script = ["sh", "-c", text, "imgload", str(file), old, "new\n", "script"]
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(script, capture_output=True, env=environ, check=False)
    message = ExecResult(ended.returncode, ended.stdout, ended.stderr).message
    assert (ended.returncode, file.read_text() if file.exists() else "") == (1, old)
    assert message == "containerd refuses it:\ncontainerd: no such plugin"
