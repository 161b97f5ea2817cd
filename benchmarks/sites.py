"""Where is measured, and what the ratios are to be (issue "Only what is missing moves")."""

import attrs

from benchmarks.archives import DOCKER, OCI
from benchmarks.real import REAL
from tests.lab import Cluster, Lab

SERVE = ("serve-cold", "serve-rebuild", "serve-real")
"""Those that end with the start of a container, of `imgload load` and `imgload serve`."""

CASES = ("cold", "rebuild", "present", "tag", "two", "three", "ten", "layers", *REAL, *SERVE)
"""What can be asked for; `rebuild` gives `learning` too where the engine has to be taught, and
`layers` one case for each number of layers."""

ONE_NODE = ("cold", "rebuild", "present", "tag")
"""Those that build on each other, in this order, on the cluster of one node."""

ARCHIVE_CASES = ("cold", "two", "three", *REAL)
"""Those for images in archives, which no engine builds."""

CONTESTANTS = ("kind", "archive", "ctr", "imgload", "serve")

TARGET_SIZE = 600
"""Of the images that the targets are about, in MB."""

WORDS = {
    "cold": "cold",
    "learning": "one-line rebuild, the first",
    "rebuild": "one-line rebuild",
    "present": "present",
    "tag": "a new name only",
    "two": "two nodes, cold",
    "three": "three nodes, cold",
    "ten": "ten images that share a base, cold",
    "real": "Debian with Python, cold",
    "zstd": "Debian with Python, zstd layers, cold",
    "forty": "Debian with Python, 40 layers, cold",
    "binary": "a program in Go, cold",
    "serve-cold": "container start, cold",
    "serve-rebuild": "container start, one-line rebuild",
    "serve-real": "container start, Debian with Python, cold",
}
_ROLES = ("control-plane", "worker", "worker")
_LAYERS = "layers:"


def layers_case(count: int) -> str:
    """Return the case of an image with so many layers."""
    return f"{_LAYERS}{count}"


def layers_in(case: str) -> int | None:
    """Return how many layers the case is about."""
    return int(case.removeprefix(_LAYERS)) if case.startswith(_LAYERS) else None


def words(case: str) -> str:
    """Return what the case is called in a table."""
    count = layers_in(case)
    return WORDS[case] if count is None else f"{count} layers, cold"


def order(case: str) -> tuple[int, int]:
    """Sort cases as the tables have them."""
    count = layers_in(case)
    return (list(WORDS).index(case), 0) if count is None else (len(WORDS), count)


@attrs.frozen
class Site:
    """An engine, the clusters that it runs, and the ratios that imgload is to reach.

    Args:
        label: the engine's name in the table.
        one: the cluster with one node; None where the lab has none, and one is made.
        three: the cluster with three; likewise.
        targets: how many times as fast as the rival, at least, by case.
        rival: the contestant that they are about.
        remembers: whether the engine has to push a layer once before it can leave it out.
        layers: how many an image gets; a graphdriver store takes no more than 125.
        pushes: whether the engine pushes a whole image faster than it saves it.
        form: of the archives that are loaded; None where the engine's images are.
        keeps_compression: whether it stores layers as they were compressed.

    """

    label: str
    one: str | None
    three: str | None
    targets: dict[str, float]
    rival: str = "kind"
    remembers: bool = False
    layers: tuple[int, int] = (64, 127)
    pushes: bool = False
    form: str | None = None
    keeps_compression: bool = False

    def single(self, lab: Lab, engine: str) -> Cluster:
        """Return the cluster with one node, running; kind sees by crictl what it has."""
        if self.one:
            return lab.cluster(self.one)
        return lab.make_cluster(name=f"{engine}-1", engine=engine, crictl=True)

    def triple(self, lab: Lab, engine: str) -> Cluster:
        """Return the cluster with three nodes, running."""
        if self.three:
            return lab.cluster(self.three)
        return lab.make_cluster(name=f"{engine}-3", engine=engine, roles=_ROLES)


SITES = {
    "docker28": Site(
        "Docker 28, containerd store",
        one=None,
        three=None,
        targets={"cold": 8, "rebuild": 75, "present": 80, "three": 5, "real": 3},
        pushes=True,
        keeps_compression=True,
    ),
    "docker28-graphdriver": Site(
        "Docker 28, graphdriver",
        one=None,
        three=None,
        targets={},
        remembers=True,
        layers=(64, 125),
    ),
    "docker": Site(
        "Docker 20.10, graphdriver",
        one="lab-d21",
        three="lab-d3",
        targets={"cold": 1.9, "rebuild": 50, "present": 0.67, "three": 2.5, "real": 1.8},
        remembers=True,
        layers=(64, 125),
    ),
    "podman": Site(
        "Podman",
        one="lab-p21",
        three="lab-p3",
        targets={"cold": 1.8, "rebuild": 35, "three": 2.5, "real": 1.8},
        rival="archive",
    ),
    "oci-archive": Site(
        "OCI archive",
        one="lab-d21",
        three="lab-d3",
        targets={"cold": 5, "three": 4, "real": 2.5},
        form=OCI,
        keeps_compression=True,
    ),
    "docker-archive": Site(
        "Docker archive",
        one="lab-d21",
        three="lab-d3",
        targets={"cold": 5, "three": 4, "real": 2.5},
        form=DOCKER,
    ),
}
ENGINES = tuple(name for name, site in SITES.items() if not site.form)
ARCHIVES = tuple(name for name, site in SITES.items() if site.form)
LIMITS = {"cold": 1.3, "real": 1.3, "rebuild": 1.6}
"""How many times the floor imgload may take at most, by case."""
SERVE_LIMIT = 1.2
"""How many times the time of a load serve may take at most, both with the start of a container."""
