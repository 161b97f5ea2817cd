"""Time, CPU time and peak memory of a command."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks import stopwatch

_STRANGE = (
    *("DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "CONTAINER_CONNECTION"),
    "PYTHONDONTWRITEBYTECODE",  # an installed package has its bytecode
)


class Failed(Exception):
    """Something was not loaded as it should be."""


@attrs.frozen
class Usage:
    """What a command used: seconds, CPU seconds with its children, bytes at the peak."""

    seconds: float
    cpu: float
    peak: int

    def then(self, other: "Usage") -> "Usage":
        """Both, one after the other."""
        return Usage(self.seconds + other.seconds, self.cpu + other.cpu, max(self.peak, other.peak))


def environment(engine: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return this process's environment with one engine, and no kube context."""
    kept = {name: value for name, value in os.environ.items() if name not in _STRANGE}
    (folder / "tmp").mkdir(exist_ok=True)
    places = {"KUBECONFIG": str(folder / "none"), "TMPDIR": str(folder / "tmp")}
    return {**kept, **places, **engine}


def measure(argv: Sequence[str | Path], env: Mapping[str, str], folder: Path) -> tuple[Usage, str]:
    """Run the command once what was written before is on the disk; its usage and stdout.

    Raises:
        Failed: when it does not exit with 0.

    """
    report = folder / "usage.json"
    command = [str(word) for word in argv]
    watch = [sys.executable, "-I", "-S", stopwatch.__file__, str(report)]
    os.sync()
    code, out, err = _communicate([*watch, *command], env)
    if code:
        raise Failed(f"{shlex.join(command)}: exit {code}\n{(err + out).strip()}")
    return Usage(**json.loads(report.read_text(encoding="utf-8"))), out


def _communicate(argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; an interruption ends the command with its children."""
    process = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
        raise
    return process.returncode, out, err
