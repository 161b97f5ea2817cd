"""Runs that are killed at each stage leave nothing; after SIGKILL the next run cleans up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tests.engine.aftermath import Setup, settled, until
from tests.engine.conftest import Images, cases, cri_id, forget, unique
from tests.engine.relay import Fault, relay
from tests.engine.test_load import config_digest
from tests.lab import Lab

MIB = 1 << 20
PULLED = 1500
"""Bytes of an exec's connection that are reached by the output after a pull only."""
STAGES: dict[str, Callable[[], Fault]] = {
    "listing the nodes": lambda: Fault("GET .*/containers/json", "hold"),
    "look-up": lambda: Fault("GET .*/images/.*/json", "hold"),
    "survey": lambda: Fault("POST .*/exec/.*/start", "hold"),
    "identification": lambda: Fault("POST .*/push", "hold"),
    "import": lambda: Fault("POST .*/exec/.*/start", "hold", after=3 * MIB, skip=1),
    "save": lambda: Fault("GET .*/images/(get|export)", "hold"),
    "start of the pull": lambda: Fault("POST .*/exec/.*/start", "hold", skip=1),
    "pull": lambda: Fault("GET .*/images/(get|export)", "hold", after=2 * MIB),
    "pulled": lambda: Fault("POST .*/exec/.*/start", "hold", after=PULLED, skip=1),
    "push": lambda: Fault("POST .*/push", "hold", skip=1),
    "proof": lambda: Fault("GET .*/exec/.*/json", "hold", skip=1),
}
NODES = {
    "docker": ("docker", "lab-d21"),
    "docker, 1.6": ("docker", "lab-d16"),
    "docker, 1.7": ("docker", "lab-d17"),
    "docker28": ("docker28", "lab-e21"),
    "podman": ("podman", "lab-p21"),
}
"""By name: the engine and the cluster."""
EVERY = [
    ("docker", "listing the nodes", "SIGINT"),
    ("docker", "look-up", "SIGINT"),
    ("docker", "look-up", "SIGKILL"),
    ("podman", "look-up", "SIGKILL"),
    ("docker", "survey", "SIGTERM"),
    ("docker", "save", "SIGINT"),
    ("docker", "save", "SIGKILL"),
    ("docker", "import", "SIGTERM"),
    ("docker", "import", "SIGKILL"),
    ("docker", "start of the pull", "SIGINT"),
    ("docker", "pull", "SIGTERM"),
    ("docker", "pull", "SIGKILL"),
    ("docker, 1.6", "pull", "SIGKILL"),
    ("docker, 1.7", "pull", "SIGINT"),
    ("docker, 1.7", "pull", "SIGKILL"),
    ("docker", "pulled", "SIGINT"),
    ("docker", "pulled", "SIGKILL"),
    ("docker", "proof", "SIGINT"),
    ("docker28", "identification", "SIGINT"),
    ("docker28", "identification", "SIGKILL"),
    ("docker28", "push", "SIGTERM"),
    ("docker28", "push", "SIGKILL"),
    ("podman", "pull", "SIGINT"),
    ("podman", "pull", "SIGKILL"),
    ("podman", "import", "SIGINT"),
    ("podman", "import", "SIGKILL"),
]
CASES = {" ".join(case): case for case in EVERY}
SHORT = (
    "docker look-up SIGKILL",
    "docker survey SIGTERM",
    "docker import SIGKILL",
    "docker28 identification SIGKILL",
    "docker, 1.7 pull SIGKILL",
    "podman pull SIGINT",
)


@pytest.mark.parametrize("case", cases(CASES, SHORT))
def test_a_killed_run_leaves_nothing(
    lab: Lab, images: Images, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    """SIGINT and SIGTERM clean up within two seconds; the next run always succeeds."""
    (source, cluster), stage, number = NODES[case[0]], case[1], signal.Signals[case[2]]
    engine, tag = lab.engine(source), unique()
    node = lab.cluster(cluster).nodes[0]
    images.build(engine, tag, b"x" * (8 * MIB))
    setup = Setup(node, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    before = setup.state()
    fault = STAGES[stage]()
    with relay(engine, tmp_path, fault) as proxy:
        variable = "CONTAINER_HOST" if source == "podman" else "DOCKER_HOST"
        other = "DOCKER_HOST" if source == "podman" else "CONTAINER_HOST"
        environ = setup.environ(**{variable: proxy.url, other: proxy.url})
        command = [sys.executable, "-m", "imgload", "load", tag, "-c", cluster]
        command += ["--transport", "import"] if stage == "import" else []
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
            if not fault.reached.wait(20):
                process.kill()
                pytest.fail(f"{stage} was not reached: {proxy.requests}")
            if stage in {"look-up", "pull"}:
                until(lambda: bool(setup.state().running))
            process.send_signal(number)
            start = time.monotonic()
            try:
                process.wait(20)
            finally:
                process.kill()
            assert time.monotonic() - start < 2
            stderr = process.stderr.read() if process.stderr else ""
        assert process.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL), stderr
        assert "Traceback" not in stderr
        fault.release.set()
        after = settled(setup, before, but="tags" if number == signal.SIGKILL else "")
        if stage in {"pulled", "proof"}:  # the image is complete
            after = attrs.evolve(after, records=before.records)
        if number == signal.SIGKILL:
            after = attrs.evolve(after, tags=before.tags)
        assert after == before

        again = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    name = f"docker.io/library/{tag}"
    assert settled(setup, attrs.evolve(before, records=before.records | {name})).tags == before.tags
    assert cri_id(node, name) == config_digest(engine, tag)
    forget(node, name)
