"""The machine that the lab stands on: its folders, its limits, its tools."""

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
    """Where the lab keeps its things."""

    root: Path
    run: Path
    _cache: Path | None = None

    @classmethod
    def find(cls) -> "Paths":
        """Take `IMGLOAD_LAB_ROOT` if it is set.

        pytest's second worker and further ones each have a lab of their own; they share the cache.
        """
        chosen = os.environ.get("IMGLOAD_LAB_ROOT")
        root = Path(chosen).absolute() if chosen else _DEFAULT_ROOT
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        if worker != "gw0":  # Podman takes no run folder of more than 50 characters
            return cls(Path(f"{root}-{worker}"), Path(f"/run/{root.name}-{worker}"), root / "cache")
        return cls(root, root / "run" if chosen else _DEFAULT_RUN)

    @property
    def cache(self) -> Path:
        """What survives `down`: packages, unpacked trees, node images."""
        return self._cache or self.root / "cache"

    def folder(self) -> Path:
        """Return the root, where large files may be put, made if it is missing."""
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root

    @property
    def octet(self) -> int:
        """Sets the networks of labs with different roots apart."""
        return 213 if self.root == _DEFAULT_ROOT else 100 + crc32(bytes(self.root)) % 100

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep two processes from changing the lab at once."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def program_outside(name: str, folder: Path) -> str | None:
    """Where a program is, when ours of that name below a folder are on PATH as well."""
    elsewhere = (f for f in os.get_exec_path() if not Path(f).is_relative_to(folder))
    return shutil.which(name, path=os.pathsep.join(elsewhere))


class Once:
    """Do each named piece of work once, whichever thread asks first."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._results: dict[str, Future[None]] = {}

    def __call__(self, name: str, work: Callable[[], object]) -> None:
        """Return when the work called `name` is done; raise what it raised."""
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
    """Whether root has CAP_SYS_RESOURCE here; some sandboxes withhold it."""
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd"))
    return bool(int(bounding.split()[1], 16) >> _SYS_RESOURCE & 1)
