"""The kernel's registry of binary formats, as Debian's qemu-user-binfmt and others fill it."""

from pathlib import Path

import pytest

from imgload.clusters.nodes.emulation import READ, parse_registry
from imgload.engines.endpoint import Endpoint
from tests.unit.clusters.nodes.test_node import node_on

ARM64 = """\
enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
S390X = """\
enabled
interpreter /usr/bin/qemu-s390x-static
flags: F
offset 0
magic 7f454c4602020100000000000000000000020016
mask ffffffffffffff00fffffffffffffffffffeffff
"""
PPC64LE = """\
enabled
interpreter /usr/bin/qemu-ppc64le
flags: OCF
offset 0
magic 7f454c4602010100000000000000000002001500
mask ffffffffffffff00fffffffffffffffffeffff00
"""
ROSETTA = """\
enabled
interpreter /mnt/lima-rosetta/rosetta
flags: OCF
offset 0
magic 7f454c4602010100000000000000000002003e00
mask fffffffffffefe00fffffffffffffffffeffffff
"""
PYTHON = """\
enabled
interpreter /usr/bin/python3.13
flags:
offset 0
magic f30d0d0a
"""
NONE = frozenset[str]()
JAR = "enabled\ninterpreter /usr/bin/jexec\nflags: F\nextension .jar\n"


@pytest.mark.parametrize(
    ("entry", "emulated"),
    [
        (ARM64, frozenset({"arm64"})),
        (S390X, frozenset({"s390x"})),
        (PPC64LE, frozenset({"ppc64le"})),
        (ROSETTA, frozenset({"amd64"})),
        (PYTHON, NONE),
        (JAR, NONE),
        (ARM64.replace("enabled", "disabled"), NONE),
        (ARM64.replace("POCF", "PO"), NONE),
        (ARM64.replace("offset 0", "offset 4"), NONE),
        (ARM64.replace("b700", "b7"), NONE),
        (ARM64.replace("magic 7f", "magic zz"), NONE),
    ],
)
def test_an_entry_emulates_an_architecture_in_every_container(
    entry: str, emulated: frozenset[str]
) -> None:
    """Without the flag F, the emulator would have to be in the image."""
    assert parse_registry(f"enabled\n\n{JAR}\n{entry}") == emulated
    assert parse_registry(f"disabled\n\n{entry}") == NONE


def test_all_entries_count() -> None:
    assert parse_registry(f"enabled\n\n{ARM64}\n{PYTHON}\n{S390X}") == frozenset({"arm64", "s390x"})


@pytest.mark.parametrize("text", ["", "cat: can't open 'status'", "enabled?"])
def test_an_unreadable_registry_is_unknown(text: str) -> None:
    """Which is not the same as an empty one."""
    assert parse_registry(text) is None
    assert parse_registry("enabled\n") == NONE


def test_the_command_prints_the_registry_of_this_machine(tmp_path: Path) -> None:
    """Or nothing, where it may not be read."""
    node = node_on(tmp_path)
    [output] = node.run_all([READ])
    assert node.emulated_architectures() == parse_registry(output.text)


def test_nothing_is_mounted_on_a_machine(tmp_path: Path) -> None:
    """Where the registry is not mounted, the emulators are unknown."""
    node = node_on(tmp_path, unshare='touch "{0}/unshared"')
    node.engine.endpoint = Endpoint("ssh", "ssh://root@vm")
    node.emulated_architectures()
    assert not (tmp_path / "unshared").exists()
