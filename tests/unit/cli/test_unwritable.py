"""What becomes of a command whose output nobody takes."""

import os
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
def test_an_output_that_cannot_be_written_is_an_error(arguments: list[str]) -> None:
    with FULL.open("wb") as full:
        ended = imgload(arguments, full.fileno())
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "error: the output could not be written: No space left on device"
    ]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_reader_that_leaves_ends_the_command_in_silence(arguments: list[str]) -> None:
    """As with `imgload images | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = imgload(arguments, writer)
    finally:
        os.close(writer)
    assert ended.returncode == 1
    assert not ended.stderr


def test_kubectl_may_leave_before_the_answer() -> None:
    """It does when the user goes on typing."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "from imgload.cli.completion import kubectl; kubectl()"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code, "load", "--t"],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(closed: str, tmp_path: Path) -> None:
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


def test_all_of_a_long_output_is_written() -> None:
    """The program ends without taking the interpreter apart, and not before that."""
    ended = imgload(["completion", "bash"], subprocess.PIPE)
    assert ended.returncode == 0
    assert len(ended.stdout) > 500
    assert ended.stdout.endswith("\n")
