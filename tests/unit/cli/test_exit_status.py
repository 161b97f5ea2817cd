"""Exit statuses, and errors as text and as JSON, with a stub of the Docker daemon."""

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
    """As text on stderr."""
    case = CASES[name]
    outcome = fail(case)
    assert outcome.status == case.status
    assert outcome.stdout == ""
    first, *rest = outcome.stderr.splitlines()
    assert first.startswith("error: ")
    if case.kind not in {"archive-invalid", "engine-failed"} or name == "no layout":
        assert any(line.startswith("  try: ") for line in rest)


@pytest.mark.parametrize("name", CASES)
def test_json_output_of_a_failure_is_one_document(fail: Fail, name: str) -> None:
    """In the shape of a report, with the error; stderr stays empty."""
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
def test_quiet_still_prints_errors(fail: Fail, name: str) -> None:
    """Quiet means errors only, not nothing."""
    assert fail(CASES[name], "--quiet").stderr.startswith("error: ")


@pytest.mark.parametrize(
    "flags",
    [["--output", "json"], ["--output=json"], ["-o", "json"], ["-ojson"], ["-qo", "json"]],
)
def test_each_spelling_of_the_output_option_is_recognized(fail: Fail, flags: list[str]) -> None:
    """An error is output like a report."""
    assert json.loads(fail(CASES["dead socket"], *flags).stdout)["ok"] is False


def test_the_last_output_option_wins(fail: Fail) -> None:
    """As it does for a load that succeeds."""
    outcome = fail(CASES["dead socket"], "-o", "json", "-o", "text")
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("error: ")


def test_an_argument_after_two_dashes_is_not_the_output_option(fail: Fail) -> None:
    """It is the name of an image."""
    outcome = fail(CASES["dead socket"], "--", "-o", "json")
    assert outcome.stdout == ""


def test_wrong_usage_prints_only_json_on_stdout(run: Run) -> None:
    """Where the call itself could not be read there may be no document, but no prose either."""
    outcome = run("load", "app", "--nope", "--output", "json")
    assert outcome.status == 2
    assert outcome.stdout == "" or json.loads(outcome.stdout)


FAILED_LOAD = Case(("app:dev",), 1, "node-not-running")


def test_a_failed_node_exits_with_1(fail: Fail) -> None:
    """It is reported once, below its image, with a hint."""
    outcome = fail(FAILED_LOAD)
    assert outcome.status == 1
    assert outcome.stdout.count("kind-control-plane is paused") == 1
    assert "try: docker unpause kind-control-plane" in outcome.stdout
    assert "error:" not in outcome.stderr


def test_quiet_prints_a_failed_node_on_stderr(fail: Fail) -> None:
    """A cron job hides stdout."""
    outcome = fail(FAILED_LOAD, "--quiet")
    assert outcome.stdout == ""
    assert "kind-control-plane is paused" in outcome.stderr


def test_a_failed_node_is_part_of_the_report(fail: Fail) -> None:
    """The whole report, as after a successful load."""
    document = json.loads(fail(FAILED_LOAD, "-o", "json").stdout)
    assert set(document) == REPORT_KEYS | {"notes"}
    [image] = document["images"]
    [row] = image["nodes"]
    assert (image["reference"], row["ok"]) == ("docker.io/library/app:dev", False)
    assert row["error"]["kind"] == "node-not-running"
    assert complaints(document) == []


def test_a_dry_run_fails_like_a_load(fail: Fail) -> None:
    """No plan can be made for a node that does not answer."""
    document = json.loads(fail(FAILED_LOAD, "-o", "json", "--dry-run").stdout)
    assert (document["dry_run"], document["ok"]) == (True, False)
    assert complaints(document) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_exits_with_130(fail: Fail, number: signal.Signals) -> None:
    """SIGTERM like Ctrl-C: both clean up, and print no traceback."""
    docker = Docker(on_list=lambda: os.kill(os.getpid(), number))
    outcome = fail(Case(("app:dev",), 130, "", docker))
    assert (outcome.status, outcome.stderr.strip()) == (130, "interrupted")
