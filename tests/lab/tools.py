"""Public clients of images and registries: crane, oras, skopeo, umoci, buildah."""

from pathlib import Path

import attrs

from tests.lab import suites
from tests.lab.machine import Paths
from tests.lab.shell import Word, run


@attrs.frozen
class Tools:
    """Runs public clients in a folder, which is also their home and has Buildah's images."""

    paths: Paths
    folder: Path

    def run(self, program: str, *args: Word) -> str:
        """Return a program's output; raise `CommandError` with its stderr."""
        env = {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}
        return run(*self._command(program), *args, env=env, cwd=self.folder)

    def _command(self, program: str) -> tuple[Word, ...]:
        if program != "buildah":
            return (suites.tree(self.paths.cache, "clients") / "usr/bin" / program,)
        tree = suites.tree(self.paths.cache, "buildah", "1.28")
        storage = (f"--root={self.folder}/images", f"--runroot={self.folder}/run")
        return tree / "usr/bin/buildah", *storage, "--storage-driver=vfs"
