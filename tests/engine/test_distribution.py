"""The files of a release, installed in clean environments by pip, pipx, uv and as krew does."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import yaml

import imgload
from release import build
from tests.engine.conftest import Images, cri_id, unique
from tests.lab import Lab

VERSION = f"imgload {imgload.__version__}\n"
URL = "https://releases.invalid/v1/"
COMMANDS = {"imgload", "kubectl-imgload", "kubectl_complete-imgload"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel; its folder also has the source distribution."""
    return build.build_distributions(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def release(wheel: Path) -> Path:
    """Build the files of a release, also those for krew; return their folder."""
    build.build_krew_plugin(wheel, URL)
    return wheel.parent


def run(*command: str | Path, **variables: str | Path) -> str:
    """Return the standard output of a command that does not see this checkout."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ |= {name: str(value) for name, value in variables.items()}
    options: dict[str, Any] = {"cwd": "/", "env": environ, "text": True}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, **options)
    return str(done.stdout)


def test_the_description_has_no_links_into_the_repository(wheel: Path) -> None:
    """They do not work on a package index."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    text = str(metadata.get_payload())
    assert metadata["Name"] == "imgload-k8s"
    assert "pip install imgload-k8s" in text
    assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == []


def test_pip_installs_the_command_its_man_page_and_completion(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path)
    python, bin_folder = tmp_path / "bin/python", tmp_path / "bin"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", wheel)
    run(*pip, "check")
    assert {path.name for path in bin_folder.glob("*imgload*")} == COMMANDS
    assert run(bin_folder / "imgload", "--version") == VERSION
    assert run(python, "-c", "import imgload; print(imgload.load.__name__)") == "load\n"
    assert (tmp_path / "share/man/man1/imgload.1").is_file()
    script = tmp_path / "share/bash-completion/completions/imgload"
    complete = (
        f"source {script}; COMP_WORDS=(imgload wat) COMP_CWORD=1; _imgload_completion imgload"
    )
    path = f"{bin_folder}:{os.environ['PATH']}"
    offered = run("bash", "--norc", "-c", f"{complete}; echo ${{COMPREPLY[@]}}", PATH=path)
    assert offered == "watch\n"


@pytest.mark.long
def test_pipx_installs_the_command_and_its_man_page(wheel: Path, tmp_path: Path) -> None:
    folders = {"PIPX_HOME": "home", "PIPX_BIN_DIR": "bin", "PIPX_MAN_DIR": "man"}
    variables = {name: tmp_path / folder for name, folder in folders.items()}
    run(sys.executable, "-m", "pipx", "install", wheel, **variables)
    assert {path.name for path in (tmp_path / "bin").iterdir()} == COMMANDS
    assert run(tmp_path / "bin/imgload", "--version") == VERSION
    assert (tmp_path / "man/man1/imgload.1").is_file()


@pytest.mark.long
def test_uv_installs_the_command_from_the_source_distribution(wheel: Path, tmp_path: Path) -> None:
    folders = {"UV_TOOL_DIR": "tools", "UV_TOOL_BIN_DIR": "bin", "UV_CACHE_DIR": "cache"}
    variables = {name: tmp_path / folder for name, folder in folders.items()}
    [source] = wheel.parent.glob("imgload_k8s-*.tar.gz")
    uv = (sys.executable, "-m", "uv", "--native-tls", "--no-progress")
    run(*uv, "tool", "install", source, "--python", sys.executable, **variables)
    assert {path.name for path in (tmp_path / "bin").iterdir()} == COMMANDS
    assert run(tmp_path / "bin/imgload", "--version") == VERSION


@pytest.mark.long
def test_krews_plugin_loads_an_image(
    lab: Lab, images: Images, release: Path, tmp_path: Path
) -> None:
    """krew unpacks the archive, and puts a link to `bin` on PATH."""
    manifest = yaml.safe_load((release / "imgload.yaml").read_text())
    [platform] = manifest["spec"]["platforms"]
    archive = release / platform["uri"].removeprefix(URL)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "store", filter="data")
    assert not list((tmp_path / "store").rglob("*.so"))
    plugin = tmp_path / "kubectl-imgload"
    plugin.symlink_to(tmp_path / "store" / platform["bin"])
    assert run(plugin, "--version") == VERSION
    name = unique()
    image = images.build(lab.docker, name)
    run(plugin, "load", name, "--cluster", "lab-d21", "--from", "docker")
    assert cri_id(lab.cluster("lab-d21").nodes[0], name) == image


@pytest.mark.long
def test_krews_manifest_is_valid(release: Path) -> None:
    """The checks are those of krew (internal/index/validation/validate.go)."""
    manifest = yaml.safe_load((release / "imgload.yaml").read_text())
    assert manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2"
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Plugin", "imgload")
    spec = manifest["spec"]
    assert spec["version"] == f"v{imgload.__version__}"
    assert re.fullmatch(r"[^\r\n]{1,50}", spec["shortDescription"])
    [platform] = spec["platforms"]
    archive = release / platform["uri"].removeprefix(URL)
    assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    keys = {expression["key"] for expression in platform["selector"]["matchExpressions"]}
    assert keys <= {"os", "arch"}
