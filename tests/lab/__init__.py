"""Real engines and real containerd nodes to develop and test against."""

from tests.lab.cluster import Cluster, Node, Spec
from tests.lab.cri import Cri, CriError
from tests.lab.engine import Engine
from tests.lab.lab import Lab
from tests.lab.shell import CommandError, LabError

__all__ = [
    "Cluster",
    "CommandError",
    "Cri",
    "CriError",
    "Engine",
    "Lab",
    "LabError",
    "Node",
    "Spec",
]
