"""The ``imgload`` command: builds objects, renders results; no logic."""

from __future__ import annotations

from imgload.cli.app import main

__all__ = ["main"]
