"""The real kind, from Debian."""

from pathlib import Path

from tests.lab import suites
from tests.lab.machine import Paths

VERSIONS = suites.versions("kind")


def kind(paths: Paths, version: str) -> Path:
    """Return the program, unpacked from its package."""
    return suites.tree(paths.cache, "kind", version) / "usr/bin/kind"
