"""The ``imgload`` command: parses options, calls the library, prints results."""

from __future__ import annotations

from imgload.cli.app import main, program

__all__ = ["main", "program"]
