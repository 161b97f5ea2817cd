"""The survey that one run leaves for the next, on a node with fake ctr and crictl."""

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import SurveyQuery
from imgload.clusters.nodes.survey_cache import read_survey, write_survey
from imgload.core.state import clear_cache
from imgload.oci.digest import Digest
from tests.unit.clusters.nodes.test_node import AMD, CONFIG_ID, NOTHING, node_on
from tests.unit.recordings import MYAPP

ID = "ab" * 32
NEW = SurveyQuery((MYAPP,), (Digest.of(b"new"),))


def real_node(folder: Path) -> Node:
    node = node_on(folder)
    return attrs.evolve(node, container=attrs.evolve(node.container, id=ID))


@pytest.fixture
def file(tmp_path: Path, cache_folder: Path) -> Path:
    """Return the file of a node after an import."""
    node = real_node(tmp_path)
    node.survey(NOTHING)
    node.import_layout(iter([b"x"]), AMD, NEW)
    return cache_folder / f"node-{ID}.json"


def test_the_next_run_plans_with_the_survey_of_the_last(file: Path, tmp_path: Path) -> None:
    node = real_node(tmp_path)
    surveyed, cached = node.survey(NEW), real_node(tmp_path).cached_survey(NEW)
    assert cached is not None
    assert (cached.content, cached.snapshots) == (surveyed.content, surveyed.snapshots)
    assert cached.traits == attrs.evolve(surveyed.traits, free=None)
    assert cached.traits.start == surveyed.traits.start
    assert not cached.fresh
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_next_run_can_import_without_a_survey(file: Path, tmp_path: Path) -> None:
    node = real_node(tmp_path)
    node.cached_survey(NEW)
    node.import_layout(iter([b"x"]), AMD, NEW)
    assert file.exists()


def test_an_image_that_the_node_may_have_is_surveyed(file: Path, tmp_path: Path) -> None:
    assert file.exists()
    assert real_node(tmp_path).cached_survey(SurveyQuery((MYAPP,), (CONFIG_ID,))) is None


@pytest.mark.parametrize("operation", ["untag", "remove", "forget", "discard"])
def test_an_operation_that_removes_content_forgets_the_survey(
    file: Path, tmp_path: Path, operation: str
) -> None:
    node = real_node(tmp_path)
    node.survey(NOTHING)
    calls = {
        "untag": lambda: node.untag([]),
        "remove": lambda: node.remove([]),
        "discard": lambda: node.discard_layers([]),
        "forget": node.forget,
    }
    try:
        calls[operation]()
    except Exception:  # noqa: BLE001 - the fake ctr cannot remove
        assert operation in {"untag", "remove"}
    assert not file.exists()


def test_a_failed_import_forgets_the_survey(file: Path, tmp_path: Path) -> None:
    node = real_node(tmp_path)
    node.survey(NOTHING)
    (tmp_path / "ctr").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(Exception, match="failed"):
        node.import_layout(iter([b"x"]), AMD, NEW)
    assert not file.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"time": 0},
        {"time": 9e9},
        {"time": "now"},
        {"snapshots": ["x"]},
        {"snapshots": 3},
        {"version": [1, 2, 3]},
        {"platform": "a b"},
        {"content": 7},
    ],
    ids=str,
)
def test_an_old_or_invalid_file_is_ignored(file: Path, change: dict[str, Any]) -> None:
    assert read_survey(ID) is not None
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert read_survey(ID) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"x" * (3 << 20)], ids=["", "{", "[]", "3M"])
def test_a_damaged_file_is_ignored(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read_survey(ID) is None


@pytest.mark.parametrize("container", ["../../x", "", "node", "A" * 64])
def test_only_a_container_id_has_a_file(tmp_path: Path, cache_folder: Path, container: str) -> None:
    write_survey(container, node_on(tmp_path).survey(NOTHING))
    assert read_survey(container) is None
    assert not list(cache_folder.glob("node-*"))


def test_files_of_old_nodes_are_removed(file: Path, tmp_path: Path) -> None:
    old = file.with_name("node-" + "cd" * 32 + ".json")
    old.write_text("{}")
    os.utime(old, (1, 1))
    write_survey(ID, node_on(tmp_path).survey(NOTHING))
    assert not old.exists()
    assert file.exists()


def test_clear_cache_removes_it(file: Path) -> None:
    assert clear_cache() > 0
    assert not file.exists()
