"""The configurations that `imgload serve` and its documentation give to other programs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.conftest import Images, unique
from tests.engine.test_registry import put
from tests.engine.test_serve import pull, run, serving
from tests.lab import Lab
from tests.lab.nodeimage import CONFIGS
from tests.lab.shape import Files, K3d
from tests.lab.suites import NEWEST

PAGE = Path(__file__).parents[2] / "docs/serve.md"
TABLE = '[plugins."io.containerd.grpc.v1.cri".registry]'
K3S_FOLDER = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"


def printed(program: str) -> str:
    done = run("--print-config", program)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kind_node(version: str) -> dict[str, Any]:
    """Return a node with kind's configuration, which lacks config_path, and the printed patch.

    Its version is 2, also with containerd 2 (kind, images/base/files/etc/containerd/config.toml).
    """
    before, table, _ = CONFIGS["1.7"].partition(TABLE)
    (patch,) = yaml.safe_load(printed("kind"))["containerdConfigPatches"]
    assert table in patch
    return {"containerd": version, "config": before + patch}


class K3sWithRegistries(K3d):
    """k3s that was started with a registries.yaml, so that it names its own folder."""

    def files(self, containerd: str) -> Files:
        changed = ("/etc/containerd/certs.d", K3S_FOLDER)
        return {
            name: (text.replace(*changed), mode)
            for name, (text, mode) in super().files(containerd).items()
        }


NODES = {
    "kind, containerd 1.7": lambda: kind_node("1.7"),
    "kind, newest containerd": lambda: kind_node(NEWEST),
    "k3d": lambda: {"shape": K3sWithRegistries(), "roles": ("server",)},
}


@pytest.mark.long
@pytest.mark.parametrize("options", NODES.values(), ids=NODES)
def test_the_printed_configuration_makes_the_restart_unnecessary(
    lab: Lab, images: Images, options: Callable[[], dict[str, Any]]
) -> None:
    tag = unique()
    images.build(lab.docker, tag)
    cluster = lab.make_cluster(name="lab-recipe", engine="docker", **options())
    node = cluster.nodes[0]
    for name, mirror in yaml.safe_load(printed("k3d"))["mirrors"].items():
        (endpoint,) = mirror["endpoint"]
        text = f'server = "https://{name}/v2"\n\n[host."{endpoint}/v2"]\n  override_path = true\n'
        put(node, f"{K3S_FOLDER}/{name}/hosts.toml", text)  # as k3s does
    try:
        with serving("-c", "lab-recipe", "--from", lab.docker.url):
            assert pull(node, tag)[0] == lab.docker.image_id(tag)
    finally:
        cluster.remove()


def stderr_of(command: list[str | Path], environ: dict[str, str]) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.stderr


def test_kind_accepts_the_printed_configuration(lab: Lab, tmp_path: Path) -> None:
    """It parses the file before it finds that the cluster exists."""
    file, environ = tmp_path / "kind.yaml", {**lab.docker.environ(), "HOME": str(tmp_path)}
    command: list[str | Path] = [lab.kind(NEWEST), "create", "cluster", "--name", "lab-d21"]
    command += ["--config", file]
    file.write_text(printed("kind"))
    assert "already exist" in stderr_of(command, environ)
    file.write_text(printed("kind").replace("Patches", "Changes"))
    assert "containerdConfigChanges not found" in stderr_of(command, environ)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """It prints unknown keys, and nothing for a correct unit of an installed program."""
    (text,) = re.findall(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)
    program, file = tmp_path / ".local/bin/imgload", tmp_path / "imgload.service"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).with_name("imgload"))
    command: list[str | Path] = ["systemd-analyze", "verify", "--user", "--man=no", file]
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    file.write_text(text)
    assert stderr_of(command, environ) == ""
    file.write_text(text.replace("RestartSec", "RestartSeconds"))
    assert "RestartSeconds" in stderr_of(command, environ)
