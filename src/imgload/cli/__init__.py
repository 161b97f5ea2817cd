"""The ``imgload`` command: builds objects, renders results; no logic."""

from __future__ import annotations

from imgload.cli.app import main, program

__all__ = ["main", "program"]
