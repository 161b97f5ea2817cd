"""Helpers of the tests of engines on other machines, and of other users."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AS_USER = """
import difflib, importlib, os, pkgutil, pwd, sys
import click, yaml
import imgload
for module in pkgutil.walk_packages(imgload.__path__, "imgload."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
user = pwd.getpwnam(sys.argv[1])
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.chdir("/")
sys.argv = ["imgload", *sys.argv[2:]]
from imgload.cli.app import main
main()
"""
"""Imports everything before it drops root's rights: other users may not read the checkout."""


@contextmanager
def time_limit(seconds: float = 1.0) -> Iterator[None]:
    """Fail if the block takes longer; the limit grows with the machine's load."""
    start = time.monotonic()
    yield
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    assert time.monotonic() - start < seconds * max(1.0, busy)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a temporary folder that every user may enter, unlike `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="imgload-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run_as(user: str, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run imgload as another user, with only these variables."""
    python = {k: v for k, v in os.environ.items() if k in {"PATH", "PYTHONPATH"}}
    return subprocess.run(
        [sys.executable, "-c", _AS_USER, user, *args],
        env={**python, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
