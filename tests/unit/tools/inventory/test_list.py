"""Listing images on nodes."""

from pathlib import Path

import attrs
import pytest

from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeNotRunning, NodeUnusable
from imgload.engines.base import Container
from imgload.tools.inventory.list import Listing, list_images
from tests.unit.clusters.nodes.stock import Stored, printed
from tests.unit.fakes import RUNNING, LocalEngine

DEV = "docker.io/library/app:dev"
OLD, NEW = Stored("old", [DEV]), Stored("new", [DEV])
DB = Stored("db", ["docker.io/library/db:1", "ghcr.io/me/db:1"])
CTR = """
case "$*" in
  version) printf 'Server:\\n  Version: 2.1.0\\n' ;;
  "-n k8s.io images ls -q"*) cat "{0}/1" ;;
  "-n k8s.io images ls"*) cat "{0}/0" ;;
  *"containers ls") cat "{0}/2" ;;
  *"content ls") cat "{0}/4" ;;
  *"overlayfs ls") cat "{0}/6" ;;
  *"usage -b") cat "{0}/7" ;;
  *) exit 3 ;;
esac
"""


def node(folder: Path, name: str, *images: Stored, container: Container = RUNNING) -> Node:
    """Return a node that has these images; the last one is in use."""
    stored = folder / name
    stored.mkdir()
    used = [(images[-1].names[0], None)] if images and images[-1].names else []
    for number, answer in enumerate(printed(images, containers=used)):
        (stored / str(number)).write_bytes(answer.stdout)
    scripts = {"ctr": CTR.replace("{0}", str(stored)), "crictl": "exit 127"}
    return Node(name, LocalEngine(stored, scripts), container)


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    stopped = attrs.evolve(RUNNING, state="exited")
    lost = Stored("lost", labels={"imgload.loaded/docker.io/library/app:dev": "17"})
    nodes = [
        node(tmp_path, "kind-control-plane", OLD, DB),
        node(tmp_path, "kind-worker", lost, NEW),
        node(tmp_path, "kind-worker2", container=stopped),
    ]
    return list_images(nodes)


def test_listing_has_each_name_on_its_nodes(listing: Listing) -> None:
    """Sorted by name; unnamed images come last."""
    lost = Stored("lost")
    assert [(i.name, i.image_id, list(i.nodes)) for i in listing.images] == [
        (DEV, *where)
        for where in sorted(
            [(OLD.image_id, ["kind-control-plane"]), (NEW.image_id, ["kind-worker"])]
        )
    ] + [
        ("docker.io/library/db:1", DB.image_id, ["kind-control-plane"]),
        ("ghcr.io/me/db:1", DB.image_id, ["kind-control-plane"]),
        (None, lost.image_id, ["kind-worker"]),
    ]


def test_a_name_with_two_images_drifts(listing: Listing) -> None:
    """A name that a node lacks does not."""
    assert {i.name for i in listing.images if i.drift} == {DEV}


def test_listing_reports_nodes_that_are_not_running(listing: Listing) -> None:
    """The other nodes are listed."""
    assert not listing.ok
    assert list(listing.errors) == ["kind-worker2"]
    assert isinstance(listing.errors["kind-worker2"], NodeNotRunning)
    assert list(listing.sizes) == ["kind-control-plane", "kind-worker"]


def test_listing_names_a_node_whose_containerd_does_not_answer(tmp_path: Path) -> None:
    """The error has the node's name and a hint."""
    dead = Node("kind-worker", LocalEngine(tmp_path, {"ctr": "exit 1"}), RUNNING)
    error = list_images([dead]).errors["kind-worker"]
    assert isinstance(error, NodeUnusable)
    assert error.message.startswith("kind-worker: ")
    assert error.hint


@pytest.mark.parametrize(
    ("patterns", "only", "expected"),
    [
        (["app"], set(), [DEV, DEV, None]),
        (["ghcr.io/*"], set(), ["ghcr.io/me/db:1"]),
        (["nothing"], set(), []),
        ([], {"unused"}, [DEV, None]),
        ([], {"drift"}, [DEV, DEV]),
        (["db"], {"drift"}, []),
    ],
)
def test_listing_can_be_filtered(
    tmp_path: Path, patterns: list[str], only: set[str], expected: list[str | None]
) -> None:
    """An unnamed build is found by the name it was loaded under."""
    lost = Stored("lost", labels={"imgload.loaded/docker.io/library/app:dev": "17"})
    nodes = [node(tmp_path, "a", OLD, DB), node(tmp_path, "b", lost, NEW)]
    listing = list_images(nodes, patterns, unused="unused" in only, drift="drift" in only)
    assert [image.name for image in listing.images] == expected


def test_listing_to_json(listing: Listing) -> None:
    """With a version, and times in ISO 8601."""
    document = listing.to_json()
    assert document["version"] == 1
    assert document["ok"] is False
    assert [(n["node"], bool(n["error"])) for n in document["nodes"]] == [
        ("kind-control-plane", False),
        ("kind-worker", False),
        ("kind-worker2", True),
    ]
    lost = document["images"][-1]
    assert (lost["reference"], lost["loaded_as"]) == (None, [DEV])
    assert lost["nodes"] == [
        {
            "node": "kind-worker",
            "size": lost["nodes"][0]["size"],
            "own_size": lost["nodes"][0]["own_size"],
            "in_use": False,
            "pinned": False,
            "loaded_by_imgload": True,
            "since": "1970-01-01T00:00:17+00:00",
        }
    ]
