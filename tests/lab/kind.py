"""The real kind, from Debian."""

from pathlib import Path

from tests.lab.debian import Suite
from tests.lab.machine import Paths

_SUITES = {"0.27": "trixie", "0.33": "sid"}
VERSIONS = tuple(_SUITES)


def kind(paths: Paths, version: str) -> Path:
    """Return the program, unpacked from its package."""
    suite = Suite(_SUITES[version], paths.cache)
    return suite.tree(f"kind-{version}", "kind") / "usr/bin/kind"
