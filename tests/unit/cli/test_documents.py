"""The documents of ``--output json`` of every command, against their published schemas."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imgload.cli.serve import _show
from imgload.cli.watch import show_watched
from imgload.core.errors import ImageNotFound, NodeError
from imgload.loader.events import Note
from imgload.oci.digest import Digest
from imgload.tools.inventory.prune import NodePruned, PruneReport
from imgload.tools.remote_registry.api import Hosting, PushReport, RegistryReport
from imgload.tools.remote_registry.configure import NodeWiring
from imgload.tools.remote_registry.push import PushedImage
from imgload.tools.serve.store import NodePull
from imgload.tools.watch.watch import WatchedLoad
from tests.schema import complaints
from tests.unit.cli.conftest import Run
from tests.unit.cli.stub import Docker, node
from tests.unit.cli.test_images import LISTING
from tests.unit.cli.test_images import report as pruned

COMMANDS = {
    "images": ["images"],
    "prune": ["prune"],
    "clusters": ["clusters"],
    "doctor": ["doctor", "app:dev"],
    "registry": ["registry", "connect", "http://reg:5000"],
    "registry-push": ["registry", "push", "app:dev", "--to", "http://127.0.0.1:1"],
    "watch": ["watch", "app"],
    "": ["load", "app:dev"],
}
NOW = datetime.now(UTC)


FAILURES = [
    (schema, failure)
    for schema in COMMANDS
    for failure in ("usage", "no engine", "no cluster", "paused node")
    if (schema, failure) != ("watch", "paused node")  # it runs until Ctrl-C
]


@pytest.mark.parametrize(("schema", "failure"), FAILURES)
def test_each_outcome_matches_the_schema(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: str, failure: str
) -> None:
    """Errors have the keys of the command's own document, so that jq finds its lists."""
    arguments = [*COMMANDS[schema], *(["--nope"] if failure == "usage" else [])]
    docker = Docker((node(),) if failure == "paused node" else ())
    with docker.listening(tmp_path) as url:
        dead = f"unix://{tmp_path}/dead.sock"
        monkeypatch.setenv("DOCKER_HOST", dead if failure == "no engine" else url)
        outcome = run(*arguments, "-o", "json")
    document = json.loads(outcome.stdout)
    assert complaints(document, schema) == []
    assert document["ok"] is (outcome.status == 0)
    if failure == "usage":
        assert document["error"]["kind"] == "usage-error"


def test_prune_cache_matches_the_schema(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert complaints(json.loads(run("prune", "--cache", "-o", "json").stdout), "prune") == []


WIRING = NodeWiring("kind-worker", ("/etc/containerd/certs.d/r/hosts.toml",))
FAILED = ImageNotFound("no image", hint="name another")
DOCUMENTS: list[tuple[str, Any]] = [
    ("images", LISTING),
    ("prune", pruned(dry_run=False)),
    ("prune", PruneReport((NodePruned("n", error=NodeError("paused")),), dry_run=True)),
    ("registry", RegistryReport("http://r", ("r",), (WIRING,), Hosting(written=True), ("note",))),
    ("registry", RegistryReport("", (), (WIRING,))),
    ("registry-push", PushReport("http://r", (PushedImage("app:dev"),))),
    ("watch", WatchedLoad(NOW, ("app:dev",), 1.0, None, FAILED)),
    ("serve", NodePull("n", "app:dev", Digest.of(b""), 1, 1.0)),
]


@pytest.mark.parametrize(("schema", "value"), DOCUMENTS)
def test_each_result_matches_the_schema(schema: str, value: Any) -> None:
    assert complaints(json.loads(json.dumps(value.to_json())), schema) == []


def test_notes_match_the_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    show_watched(Note("waiting"), "json")
    assert complaints(json.loads(capsys.readouterr().out), "watch") == []
    _show(Note("ready"), "json")
    assert complaints(json.loads(capsys.readouterr().out), "serve") == []
