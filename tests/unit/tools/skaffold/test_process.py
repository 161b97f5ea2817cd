"""Children: their output, their end, and ending them."""

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


def test_output_goes_where_ours_goes(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Unchanged, each to its own stream, from the folder asked for."""
    run(["sh", "-c", 'pwd; echo "$SAID" >&2'], tmp_path, {"SAID": "so"})
    assert capfd.readouterr() == (f"{tmp_path}\n", "so\n")


def test_what_is_read_is_shown_as_well(capfd: pytest.CaptureFixture[str]) -> None:
    """A push's digest stands in its output."""
    assert run_and_read(["sh", "-c", "echo one; echo two >&2"]) == "one\n"
    assert capfd.readouterr() == ("one\n", "two\n")


def test_what_is_read_aside_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """And its failure is nothing."""
    assert read(["echo", "one"]) == "one\n"
    assert read(["sh", "-c", "echo one; exit 3"]) == ""
    assert read(["/no/such/program"]) == ""
    assert capfd.readouterr() == ("", "")


def test_a_child_gets_no_terminal() -> None:
    """It must not wait for an answer that nobody can give."""
    run(["sh", "-c", "! read answer"])


@pytest.mark.parametrize(
    ("script", "said"), [("exit 7", "exit status 7"), ("kill -KILL $$", "signal SIGKILL")]
)
def test_a_failure_is_told(script: str, said: str) -> None:
    """What it means was said by the child."""
    with pytest.raises(BuildFailed, match=f"sh -c failed with {said}"):
        run(["sh", "-c", script])


@pytest.mark.parametrize("program", ["no-such-program", "/"])
def test_a_program_that_cannot_run_is_named(program: str) -> None:
    """Not a traceback."""
    with pytest.raises(UsageError) as caught:
        run([program, "build"])
    assert repr(program) in caught.value.message


@pytest.mark.parametrize(("script", "seconds"), [(WILLING, 1), (STUBBORN, 2)])
def test_interrupted_it_ends_all_that_it_started(
    tmp_path: Path, script: str, seconds: float
) -> None:
    """Also grandchildren, and what ignores the signal: Skaffold kills us after two seconds."""
    told = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, script, str(told)])
    while not told.exists() or not told.read_text().strip():
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert time.monotonic() - start < seconds
    assert not is_running(int(told.read_text()))


def test_interrupted_while_it_starts_a_child_it_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is there before its starting has returned, and nobody would know it."""
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
    """Whether a process is there; one that nobody has reaped is not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_scratch_file_is_gone_afterwards() -> None:
    """Whatever happens meanwhile."""
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
def test_an_image_id_is_read_however_it_is_written(text: str) -> None:
    """Podman's has lacked its algorithm."""
    assert parse_digest(text) == Digest("sha256", "a" * 64)


@pytest.mark.parametrize("text", ["", "None", "sha256:xyz"])
def test_what_is_no_digest_is_none(text: str) -> None:
    """A builder that failed leaves the file empty."""
    assert parse_digest(text) is None
