"""The distribution `imgload-k8s`: its name, its man page, and another project's `imgload`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import imgload
from docs.generated import commands, option_records
from imgload.cli.app import cli
from release.manual import MAN_PAGE, man_page, shared_files
from tests.unit.test_docs import TEXTS
from tests.unit.test_examples import parses

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_REPLACED = """error: the package `imgload` of another project overwrote files of imgload-k8s
  try: pip uninstall imgload; pip install --force-reinstall --no-deps imgload-k8s
"""


def test_no_page_installs_the_other_project_of_the_same_name() -> None:
    texts = {**TEXTS, "action.yml": (ROOT / "action.yml").read_text()}
    sources = {str(path): path.read_text() for path in (ROOT / "src").rglob("*.py")}
    installed = [
        (page, match[2].strip("\"'"))
        for page, text in {**texts, **sources}.items()
        for match in re.finditer(r"(?:pip|pipx|tool) install((?: -[\w-]+)*) (\S+)", text)
    ]
    assert ("README.md", PROJECT["name"]) in installed
    assert [(page, name) for page, name in installed if name.partition("=")[0] == "imgload"] == []


@pytest.mark.parametrize("own", [["__init__.py"], []], ids=["replaced", "removed"])
def test_a_package_of_another_project_is_named(tmp_path: Path, own: list[str]) -> None:
    """pip lets two projects write `imgload/__init__.py`, and removes it with either."""
    package = tmp_path / "imgload"
    package.mkdir()
    for path in Path(imgload.__file__).parent.iterdir():
        if path.name != "__init__.py":
            (package / path.name).symlink_to(path)
    for name in own:
        (package / name).touch()
    assert run_imgload(tmp_path) == (1, "", _REPLACED)


def run_imgload(folder: Path) -> tuple[int, str, str]:
    """Run the `imgload` in a folder with the installed packages, but not with this checkout."""
    packages = Path(click.__file__).parents[1]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{packages}"}
    command = [sys.executable, "-S", "-m", "imgload", "--version"]
    options: dict[str, Any] = {"cwd": folder, "env": environ, "text": True}
    done = subprocess.run(command, capture_output=True, check=False, **options)
    return done.returncode, done.stdout, done.stderr


def test_another_import_error_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "imgload").symlink_to(Path(imgload.__file__).parent)
    (tmp_path / "click.py").touch()
    _, _, stderr = run_imgload(tmp_path)
    assert "Error: " in stderr
    assert "'click'" in stderr


def test_the_man_page_has_every_command_and_option() -> None:
    page = man_page().replace("\\-", "-")
    for command, context in commands():
        title = f".SS {context.command_path}\n" if context.parent else ".SH SYNOPSIS\n"
        section = page.partition(title)[2].partition("\n.SS ")[0]
        flags = [flag for flag, _ in option_records(command, context)]
        assert flags
        assert [
            flag for flag in flags if f"\n.B {flag}\n" not in section.replace("\\e", "\\")
        ] == []


def test_text_in_the_man_page_is_no_request_of_roff() -> None:
    known = (".TH ", ".SH ", ".SS ", ".PP", ".TP", ".B ", ".nf", ".fi")
    requests = [line for line in man_page().splitlines() if line.startswith((".", "'"))]
    assert [line for line in requests if not line.startswith(known)] == []
    assert re.findall(r"\\[^e&-]", man_page()) == []


def test_completion_scripts_are_those_of_the_command() -> None:
    files = shared_files()
    texts = "".join(text for path, text in files.items() if path != MAN_PAGE)
    assert len(files) == 4
    for instruction in ("bash_complete", "zsh_complete", "fish_complete"):
        assert f"_IMGLOAD_COMPLETE={instruction}" in texts


def test_the_plugin_for_pytest_is_an_entry_point() -> None:
    [plugin] = (point for point in entry_points(group="pytest11") if point.name == "imgload")
    assert PROJECT["entry-points"]["pytest11"] == {"imgload": plugin.value}


def test_the_hook_for_pre_commit_runs_verify() -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] in {f"imgload {name}" for name in cli.list_commands(click.Context(cli))}
    assert parses(f"{hook['entry']} app:dev --cluster kind")
    assert (hook["language"], hook["pass_filenames"]) == ("python", False)
