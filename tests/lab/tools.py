"""Public clients of images and registries, from Debian: crane, oras, skopeo, umoci, buildah."""

from pathlib import Path

import attrs

from tests.lab.debian import Suite
from tests.lab.machine import Paths
from tests.lab.shell import Word, run

_SUITE = "sid"
_PROGRAMS = ("crane", "oras", "skopeo", "umoci")
_LIBRARIES = ("libc6", "libgpgme45", "libassuan9", "libgpg-error0", "libsqlite3-0")
_BUILDAH_SUITE = "bookworm"
"""buildah starts itself again, which another suite's loader prevents."""


@attrs.frozen
class Tools:
    """Runs public clients in a folder, which is also their home and has Buildah's images."""

    paths: Paths
    folder: Path

    def run(self, program: str, *args: Word) -> str:
        """Return a program's output; raise `CommandError` with its stderr."""
        command = self._buildah() if program == "buildah" else self._command(program)
        env = {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}
        return run(*command, *args, env=env, cwd=self.folder)

    def _command(self, program: str) -> tuple[Word, ...]:
        """Return the command of a program; it runs with the C library of its own suite."""
        tree = Suite(_SUITE, self.paths.cache).tree("tools", *_PROGRAMS, *_LIBRARIES)
        libraries = tree / "usr/lib/x86_64-linux-gnu"
        loader = libraries / "ld-linux-x86-64.so.2"
        return loader, "--library-path", libraries, tree / "usr/bin" / program

    def _buildah(self) -> tuple[Word, ...]:
        tree = Suite(_BUILDAH_SUITE, self.paths.cache).tree("buildah", "buildah")
        storage = (f"--root={self.folder}/images", f"--runroot={self.folder}/run")
        return tree / "usr/bin/buildah", *storage, "--storage-driver=vfs"
