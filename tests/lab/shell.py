"""Running commands, and saying which step is being done."""

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
    """Something of the lab did not work; the message is what to show."""


class CommandError(LabError):
    """A command that ended with a status other than 0."""

    def __init__(self, done: "subprocess.CompletedProcess[bytes]") -> None:
        """Keep what the finished command said."""
        self.returncode = done.returncode
        self.stdout = done.stdout.decode(errors="replace")
        self.stderr = done.stderr.decode(errors="replace")
        said = self.stderr.strip() or self.stdout.strip()
        super().__init__(f"{shlex.join(done.args)}: exit {done.returncode}\n{said}")


def output(
    *argv: Word,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> bytes:
    """What the command writes to stdout; raises `CommandError` unless it exits 0."""
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
    """`output` as text."""
    return output(*argv, stdin=stdin, env=env, cwd=cwd).decode(errors="replace")


def succeeds(*argv: Word, env: Mapping[str, str] | None = None) -> bool:
    """Whether the command exits 0."""
    try:
        output(*argv, env=env)
    except CommandError:
        return False
    return True


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print what was done and how long it took, once it is done."""
    started = time.monotonic()
    yield
    sys.stdout.write(f"{what} ({time.monotonic() - started:.1f} s)\n")
    sys.stdout.flush()


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    """Write a whole file at once, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    partial.write_text(text)
    partial.chmod(mode)
    return partial.replace(path)
