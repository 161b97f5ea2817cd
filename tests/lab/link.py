"""Link programs to the libraries of another suite, beside the machine's libc."""

from collections.abc import Iterator
from pathlib import Path

from tests.lab.shell import CommandError, run

_PROGRAMS = ("usr/bin", "usr/sbin", "usr/lib/podman", "usr/libexec")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = "usr/lib64/ld-linux-x86-64.so.2"
_ELF = b"\x7fELF"


def link(root: Path, target: Path, patchelf: Path) -> None:
    """Make the programs in `root` use the loader and the libraries there, when it is at `target`.

    Running them by the loader would not do: Podman starts itself by /proc/self/exe.
    """
    for program in _programs(root):
        try:
            run(patchelf, "--print-interpreter", program)
        except CommandError:  # it is static
            continue
        loader = ("--set-interpreter", target / _LOADER)
        run(patchelf, *loader, "--force-rpath", "--set-rpath", target / _LIBRARIES, program)


def _programs(root: Path) -> Iterator[Path]:
    for folder in _PROGRAMS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    if file.read(len(_ELF)) == _ELF:
                        yield path
