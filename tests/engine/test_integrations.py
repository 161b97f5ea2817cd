"""The action for GitHub, the plugin for pytest and the extension for Tilt, on a real node."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import starlark
import yaml

import imgload.tools.pytest.plugin
from tests.engine.conftest import Images, cri_id, unique
from tests.lab import Lab

ROOT = Path(__file__).parents[2]
_BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c")
"""As GitHub's runner calls it for `shell: bash`."""


@pytest.fixture
def imgload_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as other tools call it."""
    program = tmp_path / "bin/imgload"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m imgload "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


class Runner:
    """Runs the steps of the composite action with its inputs, like GitHub's runner."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        self._steps = action["runs"]["steps"]
        defaults = {name: spec["default"] for name, spec in action["inputs"].items()}
        self._values: dict[str, str] = {
            f"inputs.{name}": value for name, value in {**defaults, **inputs}.items()
        }
        self._values["github.action_path"] = str(ROOT)
        self._path, self.output = folder / "path", folder / "output"
        self._variables = {
            "RUNNER_TEMP": str(folder),
            "GITHUB_PATH": str(self._path),
            "GITHUB_OUTPUT": str(self.output),
        }
        for file in (self._path, self.output):
            file.touch()

    def run(self, number: int) -> subprocess.CompletedProcess[str]:
        """Run a step; the runner puts the folders in GITHUB_PATH on PATH."""
        step = self._steps[number]
        assert "${{" not in step["run"], "an input in a script can be code"
        expression = re.compile(r"\$\{\{ (.*?) \}\}")
        own = {k: expression.sub(self._value, text) for k, text in step["env"].items()}
        path = os.pathsep.join([*self._path.read_text().split(), os.environ["PATH"]])
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environ |= {**self._variables, **own, "PATH": path}
        options: dict[str, Any] = {"env": environ, "capture_output": True, "text": True}
        return subprocess.run([*_BASH, step["run"]], check=False, cwd="/", **options)

    def _value(self, match: re.Match[str]) -> str:
        return self._values[match[1]]


@pytest.mark.usefixtures("imgload_on_path")
def test_the_action_loads_each_image_and_writes_a_report(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """One name on each line; spaces and empty lines are ignored."""
    names = [unique(), unique()]
    built = [images.build(lab.docker, name) for name in names]
    listed = f"\n  {names[0]}  \n\n{names[1]}\n"
    runner = Runner(tmp_path, images=listed, cluster="lab-d21")
    done = runner.run(1)
    assert done.returncode == 0, done.stderr
    node = lab.cluster("lab-d21").nodes[0]
    assert [cri_id(node, name) for name in names] == built
    report = Path(runner.output.read_text().strip().removeprefix("report="))
    assert report.read_text().count('failures="0"') == 2


@pytest.mark.usefixtures("imgload_on_path")
def test_the_action_fails_for_an_input_that_is_no_image(tmp_path: Path) -> None:
    """It is an argument, and neither an option nor shell code."""
    for text in ("--help", "$(touch /tmp/imgload-action)", "app:missing"):
        done = Runner(tmp_path, images=text, cluster="lab-d21").run(1)
        assert done.returncode in {2, 3}, done.stderr
        assert "error: " in done.stderr + done.stdout
    assert not Path("/tmp/imgload-action").exists()


@pytest.mark.long
def test_the_action_installs_the_command_of_its_own_version(tmp_path: Path) -> None:
    runner = Runner(tmp_path, python=sys.executable)
    done = runner.run(0)
    assert done.returncode == 0, done.stderr
    folder = Path(runner._path.read_text().strip())  # noqa: SLF001
    version = subprocess.check_output([folder / "imgload", "--version"], text=True, cwd="/")
    assert version == f"imgload {imgload.__version__}\n"
    assert not (folder / "python3").exists()


TESTS = """
import sys

def test_nothing_is_imported_before_a_fixture_is_used():
    assert not any(name.startswith("imgload.loader") for name in sys.modules)

def test_an_image_is_loaded(load_image, imgload_loader, imgload_cluster):
    assert imgload_cluster == "lab-d21"
    assert load_image({name!r}) == "docker.io/library/{name}"
    assert imgload_loader.verify({name!r}).ok
"""


@pytest.mark.parametrize("selected_by", ["option", pytest.param("setting", marks=pytest.mark.long)])
def test_the_plugin_for_pytest_loads_an_image(
    lab: Lab, images: Images, tmp_path: Path, selected_by: str
) -> None:
    name = unique()
    image = images.build(lab.docker, name)
    (tmp_path / "test_app.py").write_text(TESTS.format(name=name))
    setting = "imgload_cluster = lab-d21" if selected_by == "setting" else ""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{setting}\n")
    plugins = ("-p", "no:imgload", "-p", imgload.tools.pytest.plugin.__name__)
    command = [sys.executable, "-m", "pytest", *plugins, "-q"]
    if selected_by == "option":
        command.append("--imgload-cluster=lab-d21")
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTEST_ADDOPTS": ""}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environ, "text": True}
    done = subprocess.run(command, capture_output=True, check=False, **options)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert cri_id(lab.cluster("lab-d21").nodes[0], name) == image


@pytest.mark.usefixtures("imgload_on_path")
def test_tilts_build_loads_the_image_that_it_deploys(lab: Lab, tmp_path: Path) -> None:
    """The Tiltfile runs in Starlark; the shell command that it passes to Tilt is then run."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    module = starlark.Module()
    module.add_callable("custom_build", lambda *args, **options: calls.append((args, options)))
    module.add_callable("k8s_context", lambda: "lab-d21")
    text = (ROOT / "tilt/Tiltfile").read_text()
    starlark.eval(module, starlark.parse("Tiltfile", text), starlark.Globals.standard())
    context = tmp_path / "the app; context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nARG X\nLABEL x=$X\nCOPY Dockerfile /\n")
    build_options = ["--build-arg", "X=a b"]
    module.freeze().call(
        "imgload_build", "app", str(context), build_options=build_options, ignore=["docs"]
    )
    [((ref, command), options)] = calls
    assert ref == "app"
    assert options == {"deps": [str(context)], "skips_local_docker": True, "ignore": ["docs"]}
    name = unique("tilted")
    try:
        environ = {**os.environ, "EXPECTED_REF": name, "DOCKER_BUILDKIT": "0"}
        subprocess.run(command, env=environ, check=True)
        image = lab.docker.cli("image", "inspect", "--format", "{{.Id}}", name).strip()
        assert cri_id(lab.cluster("lab-d21").nodes[0], name) == image
        label = lab.docker.cli("image", "inspect", "--format", "{{.Config.Labels.x}}", name)
        assert label.strip() == "a b"
    finally:
        lab.docker.remove_image(name)
