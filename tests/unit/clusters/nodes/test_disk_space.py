"""Whether a node has room, asked of this machine's own sh."""

from pathlib import Path

import pytest

from imgload.clusters.nodes.node import require_room
from imgload.core.errors import NodeFull
from tests.unit.clusters.nodes.test_node import NOTHING, node_on

DF = "printf 'Filesystem 1024-blocks Used Available Capacity Mounted on\\noverlay 1 1 {} 1%% /\\n'"
MIB = 1 << 20


def test_a_node_is_asked_again_before_it_is_refused(tmp_path: Path) -> None:
    """What was in the way may have gone since the survey."""
    node = node_on(tmp_path, df=DF.format(10 << 10))
    free = node.survey(NOTHING).traits.free
    assert free == 10 * MIB
    require_room(node, free, 10 * MIB)
    with pytest.raises(NodeFull, match="has 10 MiB free, and at least 11 MiB are needed"):
        require_room(node, free, 11 * MIB)
    (tmp_path / "df").write_text(f"#!/bin/sh\n{DF.format(20 << 10)}\n")
    require_room(node, free, 11 * MIB)


@pytest.mark.parametrize("df", ["exit 1", "echo nothing"])
def test_a_node_that_does_not_tell_is_tried(tmp_path: Path, df: str) -> None:
    """The import says whether there was room."""
    node = node_on(tmp_path, df=DF.format(1))
    free = node.survey(NOTHING).traits.free
    (tmp_path / "df").write_text(f"#!/bin/sh\n{df}\n")
    require_room(node, free, MIB)
    require_room(node, None, MIB)
