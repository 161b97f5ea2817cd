"""The Debian suite and the packages of each version of a program.

No other module of the lab names a suite. `NEWEST` is sid's version, which changes: read it from the
running program, and let no test rely on it. Add a row for a version that becomes available.
"""

from collections.abc import Mapping
from pathlib import Path

from tests.lab.debian import Suite

NEWEST = "newest"
_SUITES: Mapping[str, Mapping[str, str]] = {
    "buildah": {"1.28": "bookworm"},
    "builder": {"base": "bookworm"},
    "buildx": {"0.13": "trixie", NEWEST: "sid"},
    "containerd": {"1.6": "bookworm", "1.7": "trixie", NEWEST: "sid"},
    "clients": {NEWEST: "sid"},
    "crio-node": {"4.3": "bookworm", "5.4": "trixie", NEWEST: "sid"},
    "docker": {"26": "trixie", NEWEST: "sid"},
    "docker20": {"20.10": "bookworm"},
    "docker-registry": {"2.8": "bookworm"},
    "image-spec": {NEWEST: "sid"},
    "kind": {"0.27": "trixie", NEWEST: "sid"},
    "kubectl": {"1.20": "bookworm"},
    "node": {"base": "bookworm"},
    "patchelf": {"0.14": "bookworm"},
    "podman": {NEWEST: "sid"},
    "runc": {"1.1": "bookworm"},
    "sshd": {"9.2": "bookworm"},
}
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "builder": (
        *("libsystemd0", "libcap2", "libgcrypt20", "libgpg-error0"),
        *("liblzma5", "libzstd1", "liblz4-1"),
    ),
    "buildx": ("docker-buildx",),
    "clients": ("crane", "oras", "skopeo", "umoci"),
    "crio-node": ("podman", "busybox-static"),
    "docker": ("docker.io", "docker-cli", "containerd"),
    "docker20": (
        *("docker.io", "containerd"),
        *("libdevmapper1.02.1", "libudev1", "libselinux1", "libpcre2-8-0"),
    ),
    "image-spec": ("golang-github-opencontainers-image-spec-dev",),
    "kubectl": ("kubernetes-client",),
    "node": ("libc6", "libseccomp2", "busybox-static", "runc", "pigz", "zlib1g"),
    "podman": ("podman", "conmon", "crun", "netavark"),
    "sshd": (
        *("openssh-server", "sudo", "libpam0g", "libpam-modules", "libaudit1", "libselinux1"),
        *("libcrypt1", "libssl3", "libwrap0", "libsystemd0", "libgssapi-krb5-2", "libkrb5-3"),
        *(
            "libk5crypto3",
            "libkrb5support0",
            "libcom-err2",
            "libkeyutils1",
            "libcap-ng0",
            "libcap2",
        ),
        *("libgcrypt20", "libgpg-error0", "liblzma5", "libzstd1", "liblz4-1", "libpcre2-8-0"),
        *("libnsl2", "libtirpc3"),
    ),
}
"""The packages of programs whose package has another name, or that need several."""
_WITH_LIBRARIES = {("clients", NEWEST), ("podman", NEWEST)}
"""Programs that need newer libraries than the machine's."""


def versions(program: str) -> tuple[str, ...]:
    """Return the versions of a program, oldest first."""
    return tuple(_SUITES[program])


def packages(program: str) -> tuple[str, ...]:
    """Return the Debian packages that contain a program."""
    return _PACKAGES.get(program, (program,))


def folder(cache: Path, program: str, version: str = NEWEST) -> Path:
    """Return the folder that `tree` creates."""
    return _suite(cache, program, version).folder(f"{program}-{version}")


def tree(cache: Path, program: str, version: str = NEWEST) -> Path:
    """Return a cached folder with the files of a program's packages."""
    suite, name = _suite(cache, program, version), f"{program}-{version}"
    if (program, version) not in _WITH_LIBRARIES:
        return suite.tree(name, *packages(program))
    patchelf = tree(cache, "patchelf", "0.14") / "usr/bin/patchelf"
    return suite.closed_tree(name, patchelf, *packages(program))


def unpack(cache: Path, target: Path, program: str, version: str = NEWEST) -> None:
    """Unpack a program's packages over `target`."""
    _suite(cache, program, version).unpack(target, *packages(program))


def unpack_closed(cache: Path, target: Path, program: str, version: str = NEWEST) -> None:
    """Unpack a program's packages, and all packages that they depend on, over `target`."""
    _suite(cache, program, version).unpack_closed(target, *packages(program))


def _suite(cache: Path, program: str, version: str) -> Suite:
    return Suite(_SUITES[program][version], cache)
