"""`imgload doctor` on a terminal: one screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgload.cli.doctor import doctor
from tests.unit.cli.stub import Docker


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither engine answers."""
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/none.sock")
    for name in ("HOME", "XDG_CACHE_HOME", "KUBECONFIG", "PATH"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_each_area_has_its_findings_and_each_problem_its_command(tmp_path: Path) -> None:
    """Marks, `try:`, and at the end the count with the first; exit status 1."""
    done = CliRunner().invoke(doctor, ["app:dev"])
    lines = done.output.splitlines()
    assert done.exit_code == 1
    assert lines[0] == "engines"
    assert lines[1].startswith(f"  ✗ docker at unix://{tmp_path}/none.sock (from DOCKER_HOST)")
    assert lines[2].startswith("      try: ")
    assert "  - no kube context is set" in lines
    assert lines[-1].startswith("3 problems found; first: docker at ")


def test_a_name_that_is_none_is_wrong_usage() -> None:
    """Before anything is asked; in JSON too, an error."""
    done = CliRunner().invoke(doctor, ["Not/A:Name!", "-o", "json"])
    assert done.exit_code == 2
    assert '"kind": "reference-invalid"' in done.output


@pytest.mark.parametrize("named", [("-c", "other"), ("-n", "other")])
def test_a_cluster_or_node_that_is_not_there_has_the_exit_status_of_other_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, str]
) -> None:
    """Whatever else is wrong beside that; everything is looked at all the same."""
    with Docker().listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        done = CliRunner().invoke(doctor, [*named, "-o", "json"])
    assert done.exit_code == 4
    told = json.loads(done.output)
    assert {"engines", "clusters", "nodes"} <= {found["check"] for found in told["findings"]}
    [wrong] = [f for f in told["findings"] if (f["check"], f["status"]) == ("clusters", "problem")]
    assert set(wrong) == {"check", "status", "message", "hint"}
    assert "other" in wrong["message"]
