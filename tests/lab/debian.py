"""Debian packages: installed on the machine, or unpacked from another suite."""

import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.lab.link import link
from tests.lab.shell import LabError, run, step, write

_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_FRESH = 600
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
_NEEDED = {
    "dockerd": "docker.io",
    "docker": "docker-cli",
    "podman": "podman",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "newuidmap": "uidmap",
    "/usr/lib/podman/netavark": "netavark",
    "openssl": "openssl",
    "ssh": "openssh-client",
    "/usr/sbin/sshd": "openssh-server",
    "systemd-analyze": "systemd",
}


def install_missing() -> None:
    """Install the packages that the engines need and the machine lacks."""
    if not _missing():
        return
    with step(f"apt: {' '.join(_missing())} installed"):
        run("apt-get", "update", env=_QUIET)
        _install([package for package in _missing() if package != "docker-cli"])
        _install(_missing())


def _install(packages: list[str]) -> None:
    if packages:
        command = ("apt-get", "install", "-y", "--no-install-recommends")
        run(*command, *packages, env=_QUIET)


def _missing() -> list[str]:
    return [package for tool, package in _NEEDED.items() if not shutil.which(tool)]


@attrs.frozen
class Suite:
    """A suite of Debian, with its own package lists."""

    name: str
    cache: Path

    def unpack(self, target: Path, *packages: str) -> None:
        """Unpack the packages' files over `target`."""
        for package in self._fetch(packages):
            run("dpkg-deb", "--extract", package, target)

    def unpack_closed(self, target: Path, *packages: str) -> None:
        """Unpack the files of packages, and of those that they depend on, over `target`."""
        with tempfile.TemporaryDirectory(dir=self.cache) as folder, self._alone():
            for package in self._download_all(Path(folder), packages):
                run("dpkg-deb", "--extract", package, target)

    def tree(self, name: str, *packages: str) -> Path:
        """Return a cached folder with the packages' files."""
        target = self.folder(name)
        with _LOCKS[name]:
            if not target.exists():
                self._make_tree(target, packages)
        return target

    def closed_tree(self, name: str, patchelf: Path, *packages: str) -> Path:
        """Return a cached folder that also has all libraries, and whose programs use them.

        Programs that need a newer libc than the machine's do not run otherwise. They contain the
        folder's path, so the cache must not be moved.
        """
        target = self.folder(name)
        with _LOCKS[name]:
            if not target.exists():
                with step(f"{self.name}: {' '.join(packages)} downloaded with all libraries"):
                    self._make_closed_tree(target, patchelf, packages)
        return target

    def _make_closed_tree(self, target: Path, patchelf: Path, packages: tuple[str, ...]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            root = Path(folder) / "tree"
            self.unpack_closed(root, *packages)
            link(root, target, patchelf)
            root.rename(target)

    def _download_all(self, folder: Path, packages: tuple[str, ...]) -> list[Path]:
        """Download the packages and all their dependencies; return the files."""
        archives = folder / "archives"
        (archives / "partial").mkdir(parents=True)
        options = [*self._options(folder), f"-oDir::Cache::archives={archives}"]
        self._update(options)
        install = ("install", "--yes", "--no-install-recommends", "--download-only")
        run("apt-get", *options, *install, *packages)
        return sorted(archives.glob("*.deb"))

    def folder(self, name: str) -> Path:
        """Return the folder that `tree` creates."""
        return self.cache / "trees" / name

    def _make_tree(self, target: Path, packages: tuple[str, ...]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            self.unpack(Path(folder) / "tree", *packages)
            (Path(folder) / "tree").rename(target)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes from using the lists."""
        with _LOCKS[self.name], (self.cache / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _fetch(self, packages: tuple[str, ...]) -> list[Path]:
        with self._alone():
            absent = [package for package in packages if not self._cached(package)]
            if absent:
                with step(f"{self.name}: {' '.join(absent)} downloaded"):
                    self._download(absent)
        return [path for package in packages for path in self._cached(package)]

    def _cached(self, package: str) -> list[Path]:
        return sorted(self._debs.glob(f"{package}_*.deb"))[-1:]

    @property
    def _debs(self) -> Path:
        return self.cache / "debs" / self.name

    def _download(self, packages: list[str]) -> None:
        self._debs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            options = self._options(Path(folder))
            self._update(options)
            run("apt-get", *options, "download", *packages, cwd=Path(folder))
            for package in Path(folder).glob("*.deb"):
                package.rename(self._debs / package.name)

    def _update(self, options: list[str]) -> None:
        if not self._lists_are_fresh():
            run("apt-get", *options, "update")

    @property
    def _lists(self) -> Path:
        return self.cache / "lists" / self.name

    def _lists_are_fresh(self) -> bool:
        updated = self._lists.stat().st_mtime
        return any(self._lists.glob("*_Packages*")) and time.time() - updated < _FRESH

    def _options(self, folder: Path) -> list[str]:
        (self._lists / "partial").mkdir(parents=True, exist_ok=True)
        sources = write(folder / "lab.sources", _sources(self.name))
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::Lists": self._lists,
            "Dir::State::status": "/dev/null",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
        }
        return [f"-o{key}={value}" for key, value in settings.items()]


def _sources(suite: str) -> str:
    """Return the machine's apt entry for Debian with another suite."""
    chosen = os.environ.get("IMGLOAD_LAB_DEBIAN")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    entry = {"URIs": chosen, "Signed-By": keyring} if chosen else _own_entry()
    entry |= {"Types": "deb", "Suites": suite, "Components": "main"}
    return "".join(f"{key}: {value}\n" for key, value in entry.items())


def _own_entry() -> dict[str, str]:
    entries = [*_deb822_entries(), *_one_line_entries()]
    for entry in entries:
        if "debian-archive" in entry.get("Signed-By", "debian-archive"):
            return {k: v for k, v in entry.items() if k in {"URIs", "Signed-By"}}
    raise LabError("no Debian among apt's sources: set IMGLOAD_LAB_DEBIAN to a mirror's address")


def _deb822_entries() -> list[dict[str, str]]:
    entries = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for paragraph in path.read_text().split("\n\n"):
            lines = [line for line in paragraph.splitlines() if line[:1] not in " #"]
            pairs = (line.split(":", 1) for line in lines if ":" in line)
            entry = {key: value.strip() for key, value in pairs}
            if _is_main_archive(entry.get("URIs", "")):
                entries.append(entry)
    return entries


def _one_line_entries() -> list[dict[str, str]]:
    files = [Path("/etc/apt/sources.list")]
    files += sorted(Path("/etc/apt/sources.list.d").glob("*.list"))
    lines = [line for f in files if f.exists() for line in f.read_text().splitlines()]
    words = [word for line in lines if line.startswith("deb ") for word in line.split()]
    return [{"URIs": word} for word in words if _is_main_archive(word)]


def _is_main_archive(uri: str) -> bool:
    return uri.split()[:1] == [uri] and uri.rstrip("/").endswith("/debian")
