"""The Debian suite and the packages of each version of a program.

No other module of the lab names a suite. `NEWEST` is sid's version, which changes: read it from the
running program, and let no test rely on it. Add a row for a version that becomes available.
"""

from collections.abc import Mapping
from pathlib import Path

from tests.lab.debian import Suite

NEWEST = "newest"
_SUITES: Mapping[str, Mapping[str, str]] = {
    "buildah": {"1.28": "bookworm", "1.39": "trixie", NEWEST: "sid"},
    "buildx": {"0.13": "trixie", NEWEST: "sid"},
    "builder": {"base": "bookworm"},
    "containerd": {"1.6": "bookworm", "1.7": "trixie", NEWEST: "sid"},
    "crane": {NEWEST: "sid"},
    "docker": {"26": "trixie", NEWEST: "sid"},
    "docker-registry": {"2.8": "bookworm"},
    "kind": {"0.27": "trixie", NEWEST: "sid"},
    "kubectl": {"1.20": "bookworm"},
    "node": {"base": "bookworm"},
    "oras": {"1.2": "trixie", NEWEST: "sid"},
    "podman": {NEWEST: "sid"},
    "runc": {"1.1": "bookworm"},
    "skopeo": {"1.9": "bookworm", "1.18": "trixie", NEWEST: "sid"},
    "umoci": {"0.4": "bookworm", NEWEST: "sid"},
}
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "builder": (
        *("libsystemd0", "libcap2", "libgcrypt20", "libgpg-error0"),
        *("liblzma5", "libzstd1", "liblz4-1"),
    ),
    "buildx": ("docker-buildx",),
    "docker": ("docker.io", "docker-cli", "containerd"),
    "kubectl": ("kubernetes-client",),
    "node": ("libc6", "libseccomp2", "busybox-static", "runc"),
    "podman": ("podman", "conmon", "crun", "netavark"),
}
"""The packages of programs whose package has another name, or that need several."""


def versions(program: str) -> tuple[str, ...]:
    """Return the versions of a program, oldest first."""
    return tuple(_SUITES[program])


def tree(cache: Path, program: str, version: str = NEWEST) -> Path:
    """Return a cached folder with the files of a program's packages."""
    suite = Suite(_SUITES[program][version], cache)
    return suite.tree(f"{program}-{version}", *_packages(program))


def unpack(cache: Path, target: Path, program: str, version: str = NEWEST) -> None:
    """Unpack a program's packages over `target`."""
    Suite(_SUITES[program][version], cache).unpack(target, *_packages(program))


def _packages(program: str) -> tuple[str, ...]:
    return _PACKAGES.get(program, (program,))
