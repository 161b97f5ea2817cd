"""Free disk space on a node, read by this machine's sh."""

from pathlib import Path

import pytest

from imgload.core.errors import NodeFull
from tests.unit.clusters.nodes.test_node import NOTHING, node_on

DF = "printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\\noverlay 1 1 {} 1%% /\\n'"
MIB = 1 << 20


def test_require_disk_space_reads_the_free_space_again(tmp_path: Path) -> None:
    """Space may have been freed since the survey."""
    node = node_on(tmp_path, df=DF.format(10 << 10))
    free = node.survey(NOTHING).traits.free
    assert free == 10 * MIB
    node.require_disk_space(free, 10 * MIB)
    with pytest.raises(NodeFull, match="has 10 MiB free, and at least 11 MiB are needed"):
        node.require_disk_space(free, 11 * MIB)
    (tmp_path / "df").write_text(f"#!/bin/sh\n{DF.format(20 << 10)}\n")
    node.require_disk_space(free, 11 * MIB)


@pytest.mark.parametrize("df", ["exit 1", "echo nothing"])
def test_require_disk_space_accepts_unknown_free_space(tmp_path: Path, df: str) -> None:
    """The import fails if there is too little."""
    node = node_on(tmp_path, df=DF.format(1))
    free = node.survey(NOTHING).traits.free
    (tmp_path / "df").write_text(f"#!/bin/sh\n{df}\n")
    node.require_disk_space(free, MIB)
    node.require_disk_space(None, MIB)
