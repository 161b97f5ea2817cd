"""Parallel loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.lab import Lab

MIB = 1 << 20


def load_in_parallel(commands: Sequence[Sequence[str]]) -> list[str]:
    """Run several loads in parallel; return the output of those that fail or import."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "imgload", "load", *command, "--output", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    ended = [(process.communicate()[0], process.returncode) for process in running]
    return [output for output, status in ended if status or '"transport": "import"' in output]


@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
def test_ten_parallel_loads_of_different_images_succeed(
    lab: Lab, images: Images, source: str
) -> None:
    """On a common base, onto the same three nodes; each is verified."""
    engine, base = lab.engine(source), unique("base")
    images.build(engine, base, os.urandom(8 * MIB))
    built = {(tag := unique()): images.build(engine, tag, base=base) for _ in range(10)}
    nodes = lab.cluster("lab-d3").nodes
    before = records(nodes[0])
    commands = [[tag, "-c", "lab-d3", "--from", engine.url] for tag in built]
    assert load_in_parallel(commands) == []
    names = {f"docker.io/library/{tag}" for tag in built}
    for node in nodes:
        assert records(node) - before == names
        assert None not in {cri_id(node, name) for name in names}
        assert "imgload" not in node.exec("ls", "/var/lib")
        forget(node, *names)


@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
def test_two_parallel_loads_of_the_same_image_succeed(
    lab: Lab, images: Images, source: str
) -> None:
    """The second load skips the image or sends it again; both are verified."""
    engine, nodes, tag = lab.engine(source), lab.cluster("lab-d3").nodes, unique()
    images.build(engine, tag, os.urandom(8 * MIB))
    command = [tag, "-c", "lab-d3", "--from", engine.url]
    assert load_in_parallel([command, command]) == []
    for node in nodes:
        assert cri_id(node, f"docker.io/library/{tag}")
        forget(node, f"docker.io/library/{tag}")
