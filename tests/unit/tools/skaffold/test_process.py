"""Child processes: their output, their exit status, and stopping them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from imgload.core.errors import BuildFailed, UsageError
from imgload.core.state import RUN_FOLDER
from imgload.oci.digest import Digest
from imgload.tools.skaffold.process import parse_digest, read, run, run_and_read, temporary_file

WILLING = """sh -c 'echo $$ >"$0"; exec sleep 600' "$1"; true"""
STUBBORN = f"trap '' INT; {WILLING}; sleep 600"
INTERRUPTED = """
import sys
from imgload.tools.skaffold.process import run
try:
    run(["sh", "-c", sys.argv[1], "child", sys.argv[2]])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_run_passes_stdout_and_stderr_through(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(["sh", "-c", 'pwd; echo "$SAID" >&2'], tmp_path, {"SAID": "so"})
    assert capfd.readouterr() == (f"{tmp_path}\n", "so\n")


def test_run_and_read_also_shows_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_and_read(["sh", "-c", "echo one; echo two >&2"]) == "one\n"
    assert capfd.readouterr() == ("one\n", "two\n")


def test_read_shows_nothing_and_returns_nothing_after_a_failure(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert read(["echo", "one"]) == "one\n"
    assert read(["sh", "-c", "echo one; exit 3"]) == ""
    assert read(["/no/such/program"]) == ""
    assert capfd.readouterr() == ("", "")


def test_run_gives_the_child_no_stdin() -> None:
    run(["sh", "-c", "! read answer"])


@pytest.mark.parametrize(
    ("script", "result"), [("exit 7", "exit status 7"), ("kill -KILL $$", "signal SIGKILL")]
)
def test_run_reports_the_exit_status_or_signal(script: str, result: str) -> None:
    with pytest.raises(BuildFailed, match=f"sh -c failed with {result}"):
        run(["sh", "-c", script])


@pytest.mark.parametrize("program", ["no-such-program", "/"])
def test_run_names_a_program_that_cannot_run(program: str) -> None:
    with pytest.raises(UsageError) as caught:
        run([program, "build"])
    assert repr(program) in caught.value.message


@pytest.mark.parametrize(("script", "seconds"), [(WILLING, 1), (STUBBORN, 2)])
def test_an_interrupt_ends_the_childs_whole_process_group(
    tmp_path: Path, script: str, seconds: float
) -> None:
    """Also processes that ignore SIGINT: Skaffold kills its builder after two seconds."""
    pid_file = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, script, str(pid_file)])
    while not pid_file.exists() or not pid_file.read_text().strip():
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert time.monotonic() - start < seconds
    assert not is_running(int(pid_file.read_text()))


def test_an_interrupt_while_popen_runs_ends_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child exists before Popen returns."""
    started = subprocess.Popen
    children: list[subprocess.Popen[bytes]] = []

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(started(*args, **options))
        signal.raise_signal(signal.SIGINT)
        return children[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "600"], tmp_path)
    assert children[0].returncode == -signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_temporary_file_is_removed_after_an_exception() -> None:
    used: list[Path] = []

    def use() -> None:
        with temporary_file("id") as path:
            used.append(path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert not used[0].parent.exists()
    assert used[0].parent.name.startswith(RUN_FOLDER)  # which the next run removes


@pytest.mark.parametrize("text", ["sha256:" + "a" * 64, "a" * 64, "a" * 64 + "\n"])
def test_parse_digest_accepts_ids_with_and_without_the_algorithm(text: str) -> None:
    """Podman has printed IDs without it."""
    assert parse_digest(text) == Digest("sha256", "a" * 64)


@pytest.mark.parametrize("text", ["", "None", "sha256:xyz"])
def test_parse_digest_returns_none_for_other_text(text: str) -> None:
    assert parse_digest(text) is None
