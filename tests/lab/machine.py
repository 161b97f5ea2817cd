"""The folders, limits and tools of the machine that runs the lab."""

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import attrs

from tests.lab.shell import LabError

_DEFAULT_ROOT = Path("/var/lib/imgload-lab")
_DEFAULT_RUN = Path("/run/imgload-lab")
_SYS_RESOURCE = 24


@attrs.frozen
class Paths:
    """The folders of the lab."""

    root: Path
    run: Path
    _cache: Path | None = None

    @classmethod
    def find(cls) -> "Paths":
        """Return the folders below `IMGLOAD_LAB_ROOT` or the default.

        Each worker of pytest-xdist except the first has its own lab; they share the cache.
        """
        chosen = os.environ.get("IMGLOAD_LAB_ROOT")
        root = Path(chosen).absolute() if chosen else _DEFAULT_ROOT
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        if worker != "gw0":  # Podman's run folder may have at most 50 characters
            return cls(Path(f"{root}-{worker}"), Path(f"/run/{root.name}-{worker}"), root / "cache")
        return cls(root, root / "run" if chosen else _DEFAULT_RUN)

    @property
    def cache(self) -> Path:
        """The folder that survives `down`: packages, unpacked trees, node images."""
        return self._cache or self.root / "cache"

    def folder(self) -> Path:
        """Create the root, which may contain large files, and return it."""
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root

    @property
    def octet(self) -> int:
        """A number that makes the networks of labs with different roots distinct."""
        return 213 if self.root == _DEFAULT_ROOT else 100 + crc32(bytes(self.root)) % 100

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Prevent two processes from changing the lab at the same time."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def program_outside(name: str, folder: Path) -> str | None:
    """Return the path of a program, without those on PATH that are below a folder."""
    outside = (f for f in os.get_exec_path() if not Path(f).is_relative_to(folder))
    return shutil.which(name, path=os.pathsep.join(outside))


class Once:
    """Runs each named piece of work once, in the first thread that calls it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._results: dict[str, Future[None]] = {}

    def __call__(self, name: str, work: Callable[[], object]) -> None:
        """Wait until the work `name` is done; raise its exception."""
        with self._guard:
            first = name not in self._results
            result = self._results.setdefault(name, Future())
        if first:
            try:
                work()
            except BaseException as error:  # noqa: BLE001
                result.set_exception(error)
            else:
                result.set_result(None)
        result.result()


def demand_root() -> None:
    """Raise unless this is root on Linux."""
    if os.name != "posix" or not Path("/proc/self").exists() or os.geteuid():
        raise LabError("the lab needs root on Linux")


def can_raise_limits() -> bool:
    """Return whether root has CAP_SYS_RESOURCE; some sandboxes remove it."""
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd"))
    return bool(int(bounding.split()[1], 16) >> _SYS_RESOURCE & 1)
