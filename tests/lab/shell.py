"""Run commands, and print the steps of the lab."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Word = str | Path


class LabError(Exception):
    """A failure of the lab, with a message for the user."""


class CommandError(LabError):
    """A command that ended with a status other than 0."""

    def __init__(self, done: "subprocess.CompletedProcess[bytes]") -> None:
        """Keep the result of the command."""
        self.returncode = done.returncode
        self.stdout = done.stdout.decode(errors="replace")
        self.stderr = done.stderr.decode(errors="replace")
        text = self.stderr.strip() or self.stdout.strip()
        super().__init__(f"{shlex.join(done.args)}: exit {done.returncode}\n{text}")


def output(
    *argv: Word,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> bytes:
    """Return the stdout of a command; raise `CommandError` unless it exits with 0."""
    done = subprocess.run(
        [str(word) for word in argv],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )
    if done.returncode:
        raise CommandError(done)
    return done.stdout


def run(
    *argv: Word,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Return the stdout of a command as text, like `output`."""
    return output(*argv, stdin=stdin, env=env, cwd=cwd).decode(errors="replace")


def succeeds(*argv: Word, env: Mapping[str, str] | None = None) -> bool:
    """Return whether a command exits with 0."""
    try:
        output(*argv, env=env)
    except CommandError:
        return False
    return True


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title of a step and its duration at its end."""
    started = time.monotonic()
    yield
    sys.stdout.write(f"{title} ({time.monotonic() - started:.1f} s)\n")
    sys.stdout.flush()


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    partial.write_text(text)
    partial.chmod(mode)
    return partial.replace(path)
