"""Exit statuses, and errors as text and as JSON, with a daemon of our own or none."""

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.schema import complaints
from tests.unit.cli.conftest import Outcome, Run
from tests.unit.cli.stub import Docker, node

Json = dict[str, Any]
REPORT_KEYS = {"version", "images", "ok"}


@attrs.frozen
class Case:
    """A call that fails, the daemon it meets (None for a dead socket), and how it fails."""

    arguments: tuple[str, ...]
    status: int
    kind: str
    docker: Docker | None = attrs.field(factory=Docker)


CASES = {
    "bad platform": Case(("app:dev", "--platform", "???"), 2, "usage-error"),
    "bad name": Case(("App:dev",), 2, "reference-invalid"),
    "unknown source": Case(("app:dev", "--from", "/no/such/file"), 2, "usage-error"),
    "bad address": Case(("app:dev", "--from", "ftp://x"), 2, "usage-error"),
    "no image named": Case(("--cluster", "kind"), 2, "usage-error"),
    "no image": Case(("absent:dev",), 3, "image-not-found"),
    "no cluster": Case(("app:dev", "-c", "other"), 4, "cluster-not-found"),
    "no cluster at all": Case(("app:dev",), 4, "cluster-not-found", Docker(())),
    "two clusters": Case(
        ("app:dev",), 4, "cluster-ambiguous", Docker((node(), node("b-control-plane", cluster="b")))
    ),
    "no node": Case(("app:dev", "-n", "other"), 4, "node-not-found"),
    "dead socket": Case(("app:dev",), 5, "engine-unreachable", None),
    "other engine": Case(("app:dev", "--from", "podman"), 5, "engine-unreachable"),
    "broken daemon": Case(("app:dev",), 5, "engine-failed", Docker(broken=True)),
    "garbage": Case(("app:dev", "--from", "{folder}/garbage"), 6, "archive-invalid"),
    "no layout": Case(("app:dev", "--from", "{folder}"), 6, "archive-invalid"),
    "wrong platform": Case(("app:dev", "--platform", "linux/s390x"), 6, "platform-missing"),
}

Fail = Callable[..., Outcome]


@pytest.fixture
def fail(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Give a function that runs a case, with more arguments."""

    def run_case(case: Case, *more: str) -> Outcome:
        (tmp_path / "garbage").write_bytes(b"no archive " * 1000)
        words = [word.format(folder=tmp_path) for word in case.arguments]
        with case.docker.listening(tmp_path) if case.docker else contextlib.nullcontext() as url:
            monkeypatch.setenv("DOCKER_HOST", url or f"unix://{tmp_path}/dead.sock")
            return run("load", *words, *more)

    return run_case


@pytest.mark.parametrize("name", CASES)
def test_each_failure_has_its_exit_status_and_a_hint(fail: Fail, name: str) -> None:
    """As text: what failed, and what to try, on stderr."""
    case = CASES[name]
    outcome = fail(case)
    assert outcome.status == case.status
    assert outcome.stdout == ""
    first, *rest = outcome.stderr.splitlines()
    assert first.startswith("error: ")
    if case.kind not in {"archive-invalid", "engine-failed"} or name == "no layout":
        assert any(line.startswith("  try: ") for line in rest)


@pytest.mark.parametrize("name", CASES)
def test_with_json_stdout_is_one_document(fail: Fail, name: str) -> None:
    """Of the report's shape, with the error beside; stderr stays silent."""
    case = CASES[name]
    outcome = fail(case, "--output", "json")
    document = json.loads(outcome.stdout)
    assert outcome.status == case.status
    assert set(document) == REPORT_KEYS | {"error"}
    assert (document["version"], document["images"], document["ok"]) == (1, [], False)
    assert document["error"]["kind"] == case.kind
    assert document["error"]["message"]
    assert complaints(document) == []
    assert outcome.stderr == ""


@pytest.mark.parametrize("name", ["no image", "dead socket"])
def test_quiet_still_says_what_failed(fail: Fail, name: str) -> None:
    """Quiet means errors only, not nothing."""
    assert fail(CASES[name], "--quiet").stderr.startswith("error: ")


@pytest.mark.parametrize(
    "flags",
    [["--output", "json"], ["--output=json"], ["-o", "json"], ["-ojson"], ["-qo", "json"]],
)
def test_every_way_to_write_the_option_counts(fail: Fail, flags: list[str]) -> None:
    """An error is as much output as a report."""
    assert json.loads(fail(CASES["dead socket"], *flags).stdout)["ok"] is False


def test_the_last_output_option_wins(fail: Fail) -> None:
    """As it does for a load that succeeds."""
    outcome = fail(CASES["dead socket"], "-o", "json", "-o", "text")
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("error: ")


def test_a_value_that_looks_like_the_option_is_none(fail: Fail) -> None:
    """What follows -- is an image's name."""
    outcome = fail(CASES["dead socket"], "--", "-o", "json")
    assert outcome.stdout == ""


def test_wrong_usage_prints_nothing_but_json_on_stdout(run: Run) -> None:
    """Where the call itself could not be read there may be no document, but no prose either."""
    outcome = run("load", "app", "--nope", "--output", "json")
    assert outcome.status == 2
    assert outcome.stdout == "" or json.loads(outcome.stdout)


FAILED_LOAD = Case(("app:dev",), 1, "node-not-running")


def test_a_node_that_fails_is_exit_status_1(fail: Fail) -> None:
    """Told once, beneath its image, with the command that helps."""
    outcome = fail(FAILED_LOAD)
    assert outcome.status == 1
    assert outcome.stdout == ""
    assert outcome.stderr.count("kind-control-plane is paused") == 1
    assert "try: docker unpause kind-control-plane" in outcome.stderr
    assert "error:" not in outcome.stderr


def test_a_node_that_fails_is_in_the_document(fail: Fail) -> None:
    """The whole report, as after a load that went well."""
    document = json.loads(fail(FAILED_LOAD, "-o", "json").stdout)
    assert set(document) == REPORT_KEYS
    [image] = document["images"]
    [row] = image["nodes"]
    assert (image["reference"], row["ok"]) == ("docker.io/library/app:dev", False)
    assert row["error"]["kind"] == "node-not-running"
    assert complaints(document) == []


def test_a_dry_run_fails_where_a_load_would(fail: Fail) -> None:
    """A node that cannot be asked cannot be planned for."""
    document = json.loads(fail(FAILED_LOAD, "-o", "json", "--dry-run").stdout)
    assert (document["dry_run"], document["ok"]) == (True, False)
    assert complaints(document) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_exit_status_130(fail: Fail, number: signal.Signals) -> None:
    """SIGTERM as well as Ctrl-C: both clean up, and neither prints a traceback."""
    docker = Docker(on_list=lambda: os.kill(os.getpid(), number))
    outcome = fail(Case(("app:dev",), 130, "", docker))
    assert (outcome.status, outcome.stderr.strip()) == (130, "interrupted")
