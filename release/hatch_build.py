"""Hatchling's hook: add the man page and the completion scripts to a wheel."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualHook(BuildHookInterface[Any]):
    """Generate the files from the sources that are built; an editable install has none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path[:0] = [self.root, str(Path(self.root, "src"))]
        from release.manual import shared_files  # noqa: PLC0415 - needs the path

        self._folder = tempfile.TemporaryDirectory()
        for number, (target, text) in enumerate(shared_files().items()):
            path = Path(self._folder.name, str(number))
            path.write_text(text)
            build_data["shared_data"][str(path)] = target

    def finalize(self, *_: object) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()
