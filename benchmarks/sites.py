"""Where is measured, and what the ratios are to be (issue "Only what is missing moves")."""

import attrs

from tests.lab import Cluster, Lab

CASES = ("cold", "rebuild", "present", "tag", "two", "three", "ten", "layers")
"""What can be asked for; `rebuild` gives `learning` too where the engine has to be taught, and
`layers` one case for each number of layers."""

ONE_NODE = ("cold", "rebuild", "present", "tag")
"""Those that build on each other, in this order, on the cluster of one node."""

CONTESTANTS = ("kind", "archive", "ctr", "imgload")

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

    """

    label: str
    one: str | None
    three: str | None
    targets: dict[str, float]
    rival: str = "kind"
    remembers: bool = False
    layers: tuple[int, int] = (64, 127)

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
        targets={"cold": 4, "rebuild": 40, "present": 60, "three": 4},
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
        targets={"cold": 1.6, "learning": 1, "rebuild": 25, "present": 0.4, "three": 2},
        remembers=True,
        layers=(64, 125),
    ),
    "podman": Site(
        "Podman",
        one="lab-p21",
        three="lab-p3",
        targets={"cold": 2, "rebuild": 20, "three": 2},
        rival="archive",
    ),
}
