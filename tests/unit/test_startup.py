"""Modules that are imported before the first request to an engine.

They are counted instead of milliseconds, because counts do not depend on the machine. A higher
count fails; after an improvement, lower the limit. tests/engine/test_costs.py counts a whole load.
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
"""Modules that many runs need only after the survey, or not at all."""
PROBE = """
import os, sys
before = set(sys.modules)
output = open(sys.argv.pop(1), "w")

def report():
    print(*sorted(set(sys.modules) - before), sep="\\n", file=output, flush=True)
    os._exit(0)

sys.addaudithook(lambda event, _: report() if event == {until!r} else None)
try:
    {code}
finally:
    report()
"""
"""Writes the names of the modules that are imported until an audit event, or until the end."""
FIRST_CONNECTION = "socket.connect"
COMMAND = "from imgload.cli.app import main; main()"


@attrs.frozen
class Most:
    """Maximum numbers of modules; `all` includes a margin for versions of Python and click."""

    ours: int
    all: int


IMPORTS = {
    "--version": Most(ours=6, all=76),
    "--help": Most(ours=6, all=86),
    "load --help": Most(ours=24, all=131),
    "load app:dev": Most(ours=62, all=204),
    "load app:dev db:dev --cluster kind --output json": Most(ours=62, all=204),
    "verify app:dev": Most(ours=62, all=204),
    "skaffold --help": Most(ours=8, all=95),
}


def imported_by(
    folder: Path, *arguments: str, code: str = COMMAND, until: str = FIRST_CONNECTION
) -> set[str]:
    """Return the modules that a fresh interpreter imports.

    Args:
        folder: folder for the output file.
        arguments: arguments of the command.
        code: code to run.
        until: audit event that ends the interpreter.

    """
    output = folder / "modules"
    probe = PROBE.format(code=code, until=until)
    command = [sys.executable, "-c", probe, str(output), *arguments]
    subprocess.run(command, capture_output=True, check=True)
    return set(output.read_text().split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "imgload"}


@pytest.mark.parametrize("arguments", IMPORTS)
def test_start_up_imports_no_more_modules_than_its_limit(tmp_path: Path, arguments: str) -> None:
    """Up to the first connection to an engine; a hundred modules take about 20 ms."""
    imported = imported_by(tmp_path, *arguments.split())
    assert imported & HEAVY == set()
    assert len(ours(imported)) <= IMPORTS[arguments].ours, sorted(ours(imported))
    assert len(imported) <= IMPORTS[arguments].all, sorted(imported)


def test_the_library_imports_only_used_modules(tmp_path: Path) -> None:
    """`import imgload` itself costs nearly nothing."""
    assert ours(imported_by(tmp_path, code="import imgload")) == {"imgload"}
    assert imported_by(tmp_path, code="import imgload; imgload.load") & HEAVY == set()


def test_imported_modules_are_detected(tmp_path: Path) -> None:
    """Otherwise the tests above could not fail."""
    assert imported_by(tmp_path, code="import yaml, rich") & HEAVY >= {"yaml", "rich"}
