"""Commands whose output cannot be written."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

FULL = Path("/dev/full")
COMMANDS = [["--help"], ["--version"], ["load", "--help"], ["completion", "bash"]]


def imgload(arguments: Sequence[str], stdout: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imgload", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_full_disk_is_reported(arguments: list[str]) -> None:
    with FULL.open("wb") as full:
        ended = imgload(arguments, full.fileno())
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "error: the output could not be written: No space left on device"
    ]


def test_kubectl_may_close_the_pipe() -> None:
    """It does so when the user continues to type."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "from imgload.cli.kubectl import kubectl; kubectl()"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code, "load", "--t"],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_change_nothing(closed: str, tmp_path: Path) -> None:
    """The image is not found, with or without them."""
    archive = tmp_path / "empty.tar"
    archive.write_bytes(b"")
    command = f'exec "$0" -m imgload load app:dev --from "$1" -c none {closed}'
    ended = subprocess.run(
        ["sh", "-c", command, sys.executable, str(archive)],
        capture_output=True,
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none"},
        check=False,
    )
    assert ended.returncode == 5
    assert b"Traceback" not in ended.stderr


def test_a_long_output_is_complete() -> None:
    """The process exits without finalizing the interpreter."""
    ended = imgload(["completion", "bash"], subprocess.PIPE)
    assert ended.returncode == 0
    assert len(ended.stdout) > 500
    assert ended.stdout.endswith("\n")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_marks_that_the_encoding_lacks_are_ascii(encoding: str, tmp_path: Path) -> None:
    """They stay different from each other."""
    dead = f"unix://{tmp_path}/none"
    environ = {"PYTHONIOENCODING": encoding, "DOCKER_HOST": dead, "CONTAINER_HOST": dead}
    ended = subprocess.run(
        [sys.executable, "-m", "imgload", "doctor"],
        capture_output=True,
        env={**os.environ, **environ},
        check=False,
    )
    assert b"Traceback" not in ended.stderr
    assert b"engines\n  x " in ended.stdout


def test_a_table_is_ascii_if_the_encoding_is() -> None:
    """Python's default in the POSIX locale, without a coercion to UTF-8."""
    code = (
        "import sys; from rich.console import Console; from imgload.cli.process import exit_fast;"
        "exit_fast(lambda: (Console().print('● in use ✓ present · absent ≠ é …'), sys.exit()))"
    )
    environ = {**os.environ, "PYTHONIOENCODING": "ascii:surrogateescape"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, env=environ, check=False, text=True)
    assert (ended.stdout, ended.stderr) == ("* in use + present . absent ! ? ~\n", "")


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_disabled(plain: dict[str, str], tmp_path: Path) -> None:
    """On a terminal as well."""
    shown = on_a_terminal({"TERM": "xterm", "DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert b"\x1b[31m" in shown
    shown = on_a_terminal({"TERM": "xterm", "DOCKER_HOST": f"unix://{tmp_path}/none", **plain})
    assert b"error: " in shown
    assert b"\x1b" not in shown


def test_colours_can_be_forced(tmp_path: Path) -> None:
    """In a pipe, as of a CI server; see force-color.org."""
    ended = subprocess.run(
        [sys.executable, "-m", "imgload", "load", "app:dev", "-c", "none"],
        capture_output=True,
        env={**os.environ, "FORCE_COLOR": "1", "DOCKER_HOST": f"unix://{tmp_path}/none"},
        check=False,
    )
    assert b"\x1b[31m" in ended.stderr


def on_a_terminal(environ: dict[str, str]) -> bytes:
    """What `imgload load` shows there."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "imgload", "load", "app:dev", "-c", "none"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **environ},
        check=False,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    return shown


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_another_full_disk_is_not_reported_as_output(unbuffered: str) -> None:
    """The error is about another file."""
    code = (
        "import os; from imgload.cli.app import finish\n"
        "finish(lambda: os.write(os.open('/dev/full', os.O_WRONLY), b'x'))"
    )
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, env=environ, text=True, check=False)
    assert "the output could not be written" not in ended.stderr
    assert ended.stderr.endswith("OSError: [Errno 28] No space left on device\n")
    with FULL.open("wb") as full:
        command = [sys.executable, "-m", "imgload", "--version"]
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environ, text=True, check=False
        )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
