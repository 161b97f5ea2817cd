"""The output of ``imgload doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgload.cli.environment import doctor
from tests.unit.cli.stub import Docker, node


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither engine answers."""
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/none.sock")
    for name in ("HOME", "XDG_CACHE_HOME", "KUBECONFIG", "PATH"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_doctor_prints_findings_by_area_with_hints(tmp_path: Path) -> None:
    """The last line has the number of problems and the first of them; exit status 1."""
    done = CliRunner().invoke(doctor, ["app:dev"])
    lines = done.output.splitlines()
    assert done.exit_code == 1
    assert lines[0] == "engines"
    assert lines[1].startswith(f"  ✗ docker at unix://{tmp_path}/none.sock (from DOCKER_HOST)")
    assert lines[2].startswith("      try: ")
    assert "  - no kube context is set" in lines
    assert lines[-1].startswith("3 problems found; first: docker at ")


def test_doctor_rejects_an_invalid_image_name() -> None:
    """Before it asks an engine; as JSON as well."""
    done = CliRunner().invoke(doctor, ["Not/A:Name!", "-o", "json"])
    assert done.exit_code == 2
    assert '"kind": "reference-invalid"' in done.output


@pytest.mark.parametrize("named", [("-c", "other"), ("-n", "other")])
def test_doctor_exits_with_4_if_the_cluster_or_node_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, str]
) -> None:
    """All other areas are checked nevertheless, but not the nodes of other clusters."""
    with Docker().listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        done = CliRunner().invoke(doctor, [*named, "-o", "json"])
    assert done.exit_code == 4
    told = json.loads(done.output)
    assert "nodes" not in {found["check"] for found in told["findings"]}
    assert {"engines", "clusters", "skaffold"} <= {found["check"] for found in told["findings"]}
    [wrong] = [f for f in told["findings"] if (f["check"], f["status"]) == ("clusters", "problem")]
    assert set(wrong) == {"check", "status", "message", "hint"}
    assert "other" in wrong["message"]


def test_doctor_counts_a_node_once_and_lists_other_clusters_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks of the node and of the image find that it is paused."""
    containers = (
        node(),
        node("a-control-plane", cluster="a"),
        node("b-control-plane", cluster="b"),
    )
    with Docker(containers).listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        monkeypatch.setenv("CONTAINER_HOST", url)
        done = CliRunner().invoke(doctor, ["app:dev", "-c", "kind", "-o", "json"])
    findings = json.loads(done.output)["findings"]
    paused = [f["status"] for f in findings if "is paused" in f["message"]]
    assert sorted(paused) == ["info", "problem"]
    others = [f["message"] for f in findings if "other clusters" in f["message"]]
    assert others == ["other clusters: a, b"]
