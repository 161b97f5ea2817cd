"""``imgload load --file`` and ``--from-manifests``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.stub import Docker, node

LISTS = (["-f", "-"], ["--from-manifests", "-"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*LISTS[0], *LISTS[1]], "standard input can be read only once"),
        ([*LISTS[0], "-"], "standard input can be read only once"),
        ([*LISTS[1], "--from", "-"], "standard input can be read only once"),
        ([*LISTS[0], "--tag", "a"], "one name cannot be given to several images"),
        ([*LISTS[1], "--also", "a"], "one name cannot be given to several images"),
        (["-f", "none.yaml"], "cannot read 'none.yaml'"),
    ],
)
def test_wrong_options_are_refused(run: Run, arguments: list[str], message: str) -> None:
    """As text and as a document."""
    outcome = run("load", *arguments)
    assert outcome.status == 2
    assert f"error: {message}" in outcome.stderr
    assert "\n  try: " in outcome.stderr
    document = json.loads(run("load", *arguments, "-o", "json").stdout)
    assert document["error"]["kind"] == "usage-error"


@pytest.mark.parametrize("option", ["--file", "--from-manifests"])
def test_a_pipe_is_no_archive_beside_a_list(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """In CI, stdin is often a pipe."""
    monkeypatch.setattr("imgload.cli.options._is_piped", lambda: True)
    file = tmp_path / "app.yaml"
    file.write_text("images: [app:dev]" if option == "--file" else "containers: [{image: a}]")
    with Docker((node(),)).listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        outcome = run("load", option, str(file), "-c", "none")
    assert outcome.status == 4, outcome
    assert "no cluster 'none'" in outcome.stderr
