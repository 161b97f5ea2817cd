"""Start-up is part of every load: what is imported before an engine is asked anything.

Modules are counted, not milliseconds: the counts are the same on every machine. A count that grows
fails; one that shrinks is entered. A whole load is counted in tests/engine/test_costs.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

HEAVY = {
    *("docker", "podman", "requests", "urllib3", "rich", "pygments", "yaml", "platformdirs"),
    *("tarfile", "zipfile", "http.server", "asyncio", "multiprocessing", "subprocess", "logging"),
    *("backports.zstd", "compression.zstd", "xml.etree.ElementTree", "importlib.metadata"),
    *(
        "imgload.loader.execute",
        "imgload.engines.cache",
        "imgload.transports",
        "imgload.sources.archive",
    ),
}
"""What many runs do not need at all, or only once the nodes have been asked."""
PROBE = """
import os, sys
before = set(sys.modules)
told = open(sys.argv.pop(1), "w")

def tell():
    print(*sorted(set(sys.modules) - before), sep="\\n", file=told, flush=True)
    os._exit(0)

sys.addaudithook(lambda event, _: tell() if event == {until!r} else None)
try:
    {code}
finally:
    tell()
"""
"""Tells what is imported until something happens, or else until the end."""
FIRST_QUESTION = "socket.connect"
COMMAND = "from imgload.cli.app import main; main()"


@attrs.frozen
class Most:
    """How many modules may be imported; `all` has room for other versions of Python and click."""

    ours: int
    all: int


IMPORTS = {
    "--version": Most(ours=6, all=76),
    "--help": Most(ours=6, all=86),
    "load --help": Most(ours=24, all=131),
    "load app:dev": Most(ours=58, all=202),
    "load app:dev db:dev --cluster kind --output json": Most(ours=58, all=202),
    "verify app:dev": Most(ours=58, all=202),
    "skaffold --help": Most(ours=8, all=95),
}


def imported_by(
    folder: Path, *arguments: str, code: str = COMMAND, until: str = FIRST_QUESTION
) -> set[str]:
    """Return the modules that a fresh interpreter imports.

    Args:
        folder: where to leave a file.
        arguments: of the command line.
        code: what is run.
        until: the audit event at which it is stopped.

    """
    told = folder / "modules"
    probe = PROBE.format(code=code, until=until)
    command = [sys.executable, "-c", probe, str(told), *arguments]
    subprocess.run(command, capture_output=True, check=True)
    return set(told.read_text().split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "imgload"}


@pytest.mark.parametrize("arguments", IMPORTS)
def test_start_up_imports_no_more_than_it_did(tmp_path: Path, arguments: str) -> None:
    """Up to the first question to an engine; each hundred modules take some 20 ms."""
    found = imported_by(tmp_path, *arguments.split())
    assert found & HEAVY == set()
    assert len(ours(found)) <= IMPORTS[arguments].ours, sorted(ours(found))
    assert len(found) <= IMPORTS[arguments].all, sorted(found)


def test_the_library_imports_what_is_used_of_it(tmp_path: Path) -> None:
    """`import imgload` itself costs nearly nothing."""
    assert ours(imported_by(tmp_path, code="import imgload")) == {"imgload"}
    assert imported_by(tmp_path, code="import imgload; imgload.load") & HEAVY == set()


def test_what_is_imported_is_seen(tmp_path: Path) -> None:
    """Or the tests above could not fail."""
    assert imported_by(tmp_path, code="import yaml, rich") & HEAVY >= {"yaml", "rich"}
