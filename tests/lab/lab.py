"""The lab: engines, clusters and the real kind, started on first use."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import cluster as clusters
from tests.lab import nodeimage
from tests.lab.cleanup import sweep
from tests.lab.cluster import Cluster, Spec
from tests.lab.debian import install_missing
from tests.lab.docker import Docker, NewerDocker
from tests.lab.engine import Engine
from tests.lab.kind import VERSIONS, kind
from tests.lab.machine import Once, Paths, demand_root
from tests.lab.podman import NewerPodman, Podman
from tests.lab.rootless import RootlessPodman
from tests.lab.shell import LabError, step

_THREE = ("control-plane", "worker", "worker")
SPECS = {
    spec.name: spec
    for spec in (
        Spec(name="lab-d21", engine="docker", crictl=True),
        Spec(name="lab-p21", engine="podman", crictl=True),
        Spec(name="lab-e21", engine="docker28"),
        Spec(name="lab-d3", engine="docker", roles=_THREE),
        Spec(name="lab-p3", engine="podman", roles=_THREE),
        Spec(name="lab-d17", engine="docker", containerd="1.7"),
        Spec(name="lab-p17", engine="podman", containerd="1.7"),
        Spec(name="lab-d16", engine="docker", containerd="1.6"),
        Spec(name="lab-p16", engine="podman", containerd="1.6"),
    )
}
ENGINES = ("docker", "podman", "docker28", "docker28-graphdriver")
DEFAULT = (*ENGINES, *SPECS, *(f"kind-{v}" for v in VERSIONS))
SPECS["lab-p58"] = Spec(name="lab-p58", engine="podman58", crictl=True)
SPECS["lab-r21"] = Spec(name="lab-r21", engine="podman-rootless", network="none")
CUT_OFF = ("docker-cut-off", "docker28-cut-off")
NEWER = ("docker26", "docker26-graphdriver", "podman58", "lab-p58")
ON_DEMAND = (*NEWER, "podman-rootless", "lab-r21", *CUT_OFF)
PIECES = (*DEFAULT, *ON_DEMAND)


def engines(paths: Paths) -> dict[str, Engine]:
    """Return all engines of the lab, running or not."""
    store = {"containerd-snapshotter": True}
    graph = {"containerd-snapshotter": False}
    known: tuple[Engine, ...] = (
        Docker("docker", paths),
        Podman("podman", paths),
        NewerDocker("docker28", paths, code="d28", subnet=2, features=store, tls=True),
        NewerDocker("docker28-graphdriver", paths, code="d28g", subnet=4, features=graph),
        NewerDocker("docker26", paths, code="d26", subnet=6, features=store, release="26"),
        NewerDocker(
            "docker26-graphdriver", paths, code="d26g", subnet=8, features=graph, release="26"
        ),
        NewerPodman("podman58", paths, code="p58", subnet=128),
        RootlessPodman("podman-rootless", paths),
        Docker("docker-cut-off", paths, code="dc", cut_off=True),
        NewerDocker("docker28-cut-off", paths, code="d28c", features=store, cut_off=True),
    )
    return {engine.name: engine for engine in known}


class Lab:
    """The pieces of the lab; `close` stops those that this object has started."""

    def __init__(self, paths: Paths) -> None:
        """Start nothing."""
        self.paths = paths
        self.engines = engines(paths)
        self._once = Once()
        self._ready: set[str] = set()
        self._containers: dict[str, dict[str, bool]] = {}
        self._clusters: dict[str, Cluster] = {}
        self._started: list[Engine | Cluster] = []

    @classmethod
    def open(cls, *pieces: str) -> Self:
        """Attach to the running lab, and start these pieces unless they run."""
        demand_root()
        lab = cls(Paths.find())
        lab.up(*pieces)
        return lab

    def __enter__(self) -> Self:
        """Return the lab."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the pieces that this object has started."""
        self.close()

    def up(self, *pieces: str) -> None:
        """Start these pieces in parallel, unless they run."""
        unknown = set(pieces) - set(PIECES)
        if unknown:
            raise LabError(f"no such piece: {sorted(unknown)}; there are {', '.join(PIECES)}")
        missing = [piece for piece in pieces if piece not in self._ready]
        if missing:
            with self.paths.locked():
                self._make(missing)
            self._ready.update(missing)

    def _make(self, pieces: list[str]) -> None:
        """Download the packages for the node images while the engines start."""
        wanted = {SPECS[piece].containerd for piece in pieces if piece in SPECS}
        with ThreadPoolExecutor(len(pieces) + len(wanted)) as pool:
            made = [pool.submit(self._archive, version) for version in sorted(wanted)]
            made += [pool.submit(self._ensure, piece) for piece in pieces]
        for piece in made:
            piece.result()

    def close(self) -> None:
        """Stop all pieces that this object has started; clean up if no engine is left."""
        engines = [piece for piece in self._started if isinstance(piece, Engine)]
        created = [piece for piece in self._started if isinstance(piece, Cluster)]
        once = {(cluster.engine.name, cluster.name): cluster for cluster in created}
        with ThreadPoolExecutor() as pool:
            ended = [*pool.map(_ended, once.values()), *pool.map(_ended, engines)]
        if self._started and not any(engine.daemon.pid for engine in self.engines.values()):
            sweep(self.paths)
        errors = [str(error) for error in ended if error]
        if errors:
            raise LabError("\n".join(errors))

    def down(self, *, purge: bool = False) -> None:
        """Stop everything that any run of the lab has started, and remove its files."""
        demand_root()
        with self.paths.locked(), ThreadPoolExecutor() as pool:
            list(pool.map(_clear, self.engines.values()))
        with step("swept up"):
            sweep(self.paths, purge=purge)

    def engine(self, name: str) -> Engine:
        """Return a running engine."""
        self.up(name)
        return self.engines[name]

    @property
    def docker(self) -> Docker:
        """The Docker installed on this machine, as a second daemon next to the user's."""
        return self._docker("docker")

    @property
    def docker28(self) -> Docker:
        """Docker 28 with the containerd image store."""
        return self._docker("docker28")

    @property
    def podman(self) -> Engine:
        """Podman."""
        return self.engine("podman")

    def cluster(self, name: str) -> Cluster:
        """Return a running cluster."""
        self.up(name)
        return self._clusters[name]

    def make_cluster(self, **options: Any) -> Cluster:
        """Create a cluster from `Spec(**options)`; replace one with the same name."""
        spec = Spec(**options)
        engine = self.engine(spec.engine)
        with self.paths.locked():
            nodeimage.ensure(engine, spec.containerd)
            made = clusters.create(spec, engine, engine.containers())
        self._started.append(made)
        return made

    def kind(self, version: str) -> Path:
        """Return the path of the real kind."""
        self.up(f"kind-{version}")
        return kind(self.paths, version)

    def environ(self, engine: str = "docker") -> dict[str, str]:
        """Return the variables with which a subprocess uses this engine."""
        return self.engine(engine).environ()

    def _docker(self, name: str) -> Docker:
        engine = self.engine(name)
        assert isinstance(engine, Docker)
        return engine

    def _ensure(self, piece: str) -> None:
        if piece in self.engines:
            self._once(piece, lambda: self._ensure_engine(self.engines[piece]))
        elif piece in SPECS:
            self._once(piece, lambda: self._ensure_cluster(SPECS[piece]))
        else:
            kind(self.paths, piece.removeprefix("kind-"))

    def _archive(self, version: str) -> None:
        if not nodeimage.real():
            self._once(f"archive {version}", lambda: nodeimage.archive(self.paths, version))

    def _ensure_engine(self, engine: Engine) -> None:
        self._once("install", install_missing)
        if not engine.running():
            with step(f"{engine.name}: started"):
                engine.start()
            self._started.append(engine)
        engine.start()
        self._containers[engine.name] = engine.containers()

    def _ensure_cluster(self, spec: Spec) -> None:
        self._ensure(spec.engine)
        engine, containers = self.engines[spec.engine], self._containers[spec.engine]
        running = clusters.attach(spec, engine, containers)
        if not running:
            self._image(engine, spec.containerd)
            running = clusters.create(spec, engine, containers)
            self._started.append(running)
        self._clusters[spec.name] = running

    def _image(self, engine: Engine, version: str) -> None:
        self._archive(version)
        self._once(f"{engine.name} {version}", lambda: nodeimage.ensure(engine, version))


def _ended(piece: Engine | Cluster) -> LabError | None:
    """Stop an engine or a cluster; return the error, if any."""
    try:
        piece.remove() if isinstance(piece, Cluster) else piece.stop()
    except LabError as error:
        return error
    return None


def _clear(engine: Engine) -> None:
    with step(f"{engine.name}: cleared"):
        engine.clear()
