"""The fuzzer itself, and a short run of it; `python -m tests.fuzz --minutes N` runs longer."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from imgload.core.errors import ArchiveInvalid
from tests.fuzz.bombs import NAMES, bomb
from tests.fuzz.bounds import TooMuchError, bounded
from tests.fuzz.fuzzer import SEEDS, Drive, Fuzzer, seeds
from tests.fuzz.members import pack, plain, rewritten, unpack
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Target
from tests.unit.archives import Image, oci
from tests.unit.archives import pack as archive_of

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
_SECONDS = 5.0


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path, Random(1))


@pytest.mark.parametrize("path", sorted(SEEDS.iterdir()), ids=lambda path: path.name)
def test_every_seed_is_handled(target: Target, path: Path) -> None:
    """Real archives, and findings of earlier runs."""
    assert target(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_stays_within_the_limits(tmp_path: Path, name: str) -> None:
    """A small archive that expands enormously, in a new process with the usual limits."""
    path = tmp_path / name
    path.write_bytes(bomb(name))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", "1", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{path}: file: " in done.stdout


def test_five_seconds_find_nothing(target: Target) -> None:
    """A short run with the same mutants each time, as far as the time permits."""
    fuzzer = Fuzzer(target, Random(2), seeds())
    assert [finding.error for finding in fuzzer.run(_SECONDS)] == []
    assert fuzzer.inputs > len(seeds())


def _raises(_data: bytes) -> frozenset[str]:
    raise KeyError("layers")


def _hangs(_data: bytes) -> frozenset[str]:
    with bounded(seconds=0.05):
        while True:
            pass


def _swells(_data: bytes) -> frozenset[str]:
    with bounded():
        return frozenset({str(len(bytes(range(256)) * (90 << 12)))})


def _swells_and_refuses(data: bytes) -> frozenset[str]:
    with bounded():
        _refuses(bytes(range(256)) * (90 << 12) + data)
    return frozenset()


def _refuses(_data: bytes) -> frozenset[str]:
    raise ArchiveInvalid("nobody mapped this error to an outcome")


@pytest.mark.parametrize(
    ("drive", "message"),
    [
        (_raises, "KeyError"),
        (_hangs, "0.05 s"),
        (_swells, "80 MiB"),
        (_swells_and_refuses, "80 MiB"),
        (_refuses, "nobody"),
    ],
)
def test_the_fuzzer_finds_injected_faults(drive: Drive, message: str) -> None:
    """A crash, a hang, and too much memory: each once, with its input."""
    fuzzer = Fuzzer(drive, Random(3), seeds()[:2])
    findings = list(fuzzer.run(0.2))
    assert len(findings) == 1
    assert message in findings[0].error
    assert findings[0].data == seeds()[0]


def test_the_same_seed_makes_the_same_mutants() -> None:
    """So that a finding can be reproduced."""
    first, second = ([*_mutants(Random(4))] for _ in range(2))
    assert first == second
    assert len(set(first)) > 15


def _mutants(random: Random) -> Iterator[bytes]:
    mutate = Mutator(random)
    return (mutate(seeds()[0], seeds()) for _ in range(20))


def test_digests_and_sizes_are_updated_for_changed_content() -> None:
    """A manifest must still refer to a changed config, so that mutants pass the first checks."""
    image = Image()
    members = unpack(archive_of(oci(image)))
    config = next(member for member in members if member.content == image.config)
    changed = pack(rewritten(members, config, image.config + b" "))
    text = re.sub(rb"[0-9a-f]{64}", b"", plain(changed))
    assert image.image_id.hex.encode() not in changed
    assert image.digest.hex.encode() not in changed
    assert b'"size": %d' % (len(image.config) + 1) in text


def test_time_and_memory_within_limits_are_accepted() -> None:
    """The timers are stopped afterwards."""
    with bounded():
        sum(range(1000))
    with pytest.raises(TooMuchError), bounded(seconds=0.02):
        _spin()


def _spin() -> None:
    while True:
        pass
