"""An image on its way from the engine to CRI."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from imgload.clusters.nodes.containerd import ContentStore, CriAnswer
from imgload.clusters.nodes.survey import Survey
from imgload.engines.base import EngineImage
from imgload.oci.digest import Digest
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.image import check_image
from tests.unit.archives import NAME, Image
from tests.unit.fakes import LocalEngine
from tests.unit.stored import AMD, EMPTY, StoredEngine, StoredNode, loaded

IMAGE = Image()
OTHER = Digest.of(b"other")
MANIFEST = Digest.of(IMAGE.manifest)
WHOLE = loaded(IMAGE, MANIFEST)


def on_node(folder: Path, survey: Survey) -> Finding:
    """Return the last finding, which is about the only node."""
    target = EngineImage(
        IMAGE.image_id,
        IMAGE.image_id,
        ("app:v1",),
        AMD,
        tuple(map(Digest.of, IMAGE.layers)),
        100,
    )
    engine = LocalEngine(folder, images={"app:v1": target})
    node = StoredNode(StoredEngine(folder, IMAGE), survey)
    return list(check_image("app:v1", [engine], [], [node]))[-1]


@pytest.mark.parametrize(
    ("survey", "words"),
    [
        (EMPTY, f"n1 does not have {NAME}"),
        (
            attrs.evolve(EMPTY, records={"localhost/app:v1": OTHER}),
            f"does not have {NAME}; it has localhost/app:v1",
        ),
        (attrs.evolve(WHOLE, content=ContentStore()), "lacks its manifest"),
        (
            attrs.evolve(WHOLE, content=ContentStore(frozenset({MANIFEST}), {MANIFEST: OTHER})),
            f"has another image under {NAME}: {OTHER.short}, not {IMAGE.image_id.short}",
        ),
        (attrs.evolve(WHOLE, configs={}), "cannot read its config"),
        (attrs.evolve(WHOLE, snapshots=frozenset()), "not unpacked in CRI's snapshotter"),
        (attrs.evolve(WHOLE, cri={NAME: CriAnswer(OTHER)}), "its CRI has another image"),
        (attrs.evolve(WHOLE, cri={NAME: CriAnswer(None)}), "CRI does not report it"),
        (attrs.evolve(WHOLE, cri={}, not_in_cri=frozenset({NAME})), "CRI does not report it"),
    ],
)
def test_the_first_broken_link_is_a_problem(tmp_path: Path, survey: Survey, words: str) -> None:
    """With the command that loads the image onto this node."""
    finding = on_node(tmp_path, survey)
    assert (finding.status, finding.hint) == ("problem", "imgload load app:v1 --node n1")
    assert words in finding.message


def test_a_node_may_lack_an_image_that_is_served(tmp_path: Path) -> None:
    node = StoredNode(StoredEngine(tmp_path, IMAGE), EMPTY)
    finding = list(check_image("app:latest", [], [], [node], {"n1"}))[-1]
    assert (finding.status, finding.hint) == ("info", "")
    *_, other = check_image("app:latest", [], [], [node], {"n2"})
    assert other.status == "problem"


def test_a_whole_image_is_ok(tmp_path: Path) -> None:
    """Even without crictl."""
    assert on_node(tmp_path, WHOLE).message.endswith("unpacked, known to CRI")
    assert on_node(tmp_path, attrs.evolve(WHOLE, cri={})).status == "ok"


def test_partial_content_is_an_information(tmp_path: Path) -> None:
    """With the command that sends the layers."""
    content = attrs.evolve(WHOLE.content, layers={MANIFEST: ()})
    finding = on_node(tmp_path, attrs.evolve(WHOLE, content=content))
    assert finding.status == "info"
    assert finding.hint.endswith(f"imgload load {NAME} --node n1 --complete")


def test_an_image_is_checked_on_nodes_if_no_engine_has_it(tmp_path: Path) -> None:
    """The node's own image may be whole; if it is not, an engine must have it first."""
    node = StoredNode(StoredEngine(tmp_path, IMAGE), WHOLE)
    assert list(check_image("app:v1", [], [], [node]))[-1].status == "ok"
    node.now = EMPTY
    hint = list(check_image("app:v1", [], [], [node]))[-1].hint
    assert hint == "once an engine has it: imgload load app:v1 --node n1"


def test_a_node_that_cannot_be_surveyed_is_a_problem(tmp_path: Path) -> None:
    """As is a crictl that fails."""
    answer = CriAnswer(None, failure="timeout")
    finding = on_node(tmp_path, attrs.evolve(WHOLE, cri={NAME: answer}))
    assert finding.message.startswith(f"cannot check {NAME}: n1: CRI gives no answer")
