"""Commands whose stdout is a closed pipe: `imgload ... | head -1`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "help": ("-m", "imgload", "--help"),
    "a command's help": ("-m", "imgload", "load", "--help"),
    "version": ("-m", "imgload", "--version"),
    "findings": ("-m", "imgload", "doctor"),
    "findings as JSON": ("-m", "imgload", "doctor", "-o", "json"),
    "a report": ("-m", "imgload", "load", "app:dev", "-o", "json"),
    "JUnit XML": ("-m", "imgload", "verify", "app:dev", "-o", "junit"),
    "images": ("-m", "imgload", "images", "-o", "json"),
    "clusters": ("-m", "imgload", "clusters", "-o", "json"),
    "a cache": ("-m", "imgload", "prune", "--cache", "-o", "json"),
    "a watch": ("-m", "imgload", "watch", "app", "-o", "json"),
    "a script": ("-m", "imgload", "completion", "bash"),
    "a drop-in by its command": ("-m", "imgload", "kind", "load", "--help"),
    "a drop-in": ("-c", "from imgload.cli.dropin import serve; serve('kind')", "load", "--help"),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_closed_pipe_ends_the_command_silently(tmp_path: Path, what: str) -> None:
    """No traceback, and the status of a program that SIGPIPE ends; click's for its own texts."""
    reader, writer = os.pipe()
    os.close(reader)
    dead = f"unix://{tmp_path}/none.sock"
    done = subprocess.run(
        [sys.executable, *COMMANDS[what]],
        env={
            **os.environ,
            **{name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "KUBECONFIG")},
            **dict.fromkeys(("DOCKER_HOST", "CONTAINER_HOST"), dead),
        },
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        text=True,
    )
    os.close(writer)
    status = 1 if what in {"help", "a command's help", "version"} else 128 + signal.SIGPIPE
    assert (done.returncode, done.stderr) == (status, "")
