"""Where is measured, and what the ratios are to be (issue "Only what is missing moves")."""

import attrs

from tests.lab import Cluster, Lab

CASES = ("cold", "rebuild", "present", "three")
"""What can be asked for; `rebuild` gives `learning` too where the engine has to be taught."""

WORDS = {
    "cold": "cold",
    "learning": "one-line rebuild, the first",
    "rebuild": "one-line rebuild",
    "present": "present",
    "three": "three nodes, cold",
}
_ROLES = ("control-plane", "worker", "worker")


@attrs.frozen
class Site:
    """An engine, the clusters that it runs, and the ratios that imgload is to reach.

    Args:
        label: the engine's name in the table.
        one: the cluster with one node.
        three: the cluster with three; None where the lab has none, and one is made.
        targets: how many times as fast as the rival, at least, by case.
        remembers: whether the engine has to push a layer once before it can leave it out.

    """

    label: str
    one: str
    three: str | None
    targets: dict[str, float]
    remembers: bool = False

    def single(self, lab: Lab) -> Cluster:
        """Return the cluster with one node, running."""
        return lab.cluster(self.one)

    def triple(self, lab: Lab, engine: str) -> Cluster:
        """Return the cluster with three nodes, running."""
        if self.three:
            return lab.cluster(self.three)
        return lab.make_cluster(name="bench-3", engine=engine, roles=_ROLES)

    @property
    def cases(self) -> list[str]:
        """The rows that the engine has."""
        return [case for case in WORDS if case != "learning" or self.remembers]


SITES = {
    "docker28": Site(
        "Docker 28, containerd store",
        one="lab-e21",
        three=None,
        targets={"cold": 4, "rebuild": 40, "present": 60, "three": 4},
    ),
    "docker": Site(
        "Docker 20.10, graphdriver",
        one="lab-d21",
        three="lab-d3",
        targets={"cold": 1.6, "learning": 1, "rebuild": 25, "present": 0.4, "three": 2},
        remembers=True,
    ),
    "podman": Site(
        "Podman",
        one="lab-p21",
        three="lab-p3",
        targets={"cold": 2, "rebuild": 20, "three": 2},
    ),
}
