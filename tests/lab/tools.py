"""Public clients of images and registries, from Debian: crane, oras, skopeo, umoci."""

from tests.lab.debian import Suite
from tests.lab.machine import Paths
from tests.lab.shell import Word

_SUITE = "sid"
_PROGRAMS = ("crane", "oras", "skopeo", "umoci")
_LIBRARIES = ("libc6", "libgpgme45", "libassuan9", "libgpg-error0", "libsqlite3-0")


def tool(paths: Paths, name: str) -> tuple[Word, ...]:
    """Return the command of a program; it runs with the C library of its own suite."""
    tree = Suite(_SUITE, paths.cache).tree("tools", *_PROGRAMS, *_LIBRARIES)
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    loader = libraries / "ld-linux-x86-64.so.2"
    return loader, "--library-path", libraries, tree / "usr/bin" / name
