"""Parsing a node's images, storage and containers, and listing images on nodes."""

import re
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import all_images
from imgload.clusters.nodes.node import Node
from imgload.core.errors import ImgloadError, NodeNotRunning, NodeUnusable
from imgload.engines.base import Container
from imgload.oci.digest import Digest
from imgload.tools.inventory.base import Inventory
from imgload.tools.inventory.containerd import inventory_commands, read_inventory
from imgload.tools.inventory.images import Listing, list_images
from tests.unit.clusters.nodes.stock import KIB, NO_CRICTL, Stored, inventory, printed
from tests.unit.fakes import RUNNING, LocalEngine
from tests.unit.recordings import MYAPP, VERSIONS, recorded

APP = Stored("app", ["docker.io/library/app:dev"], ["base", "app"])
DB = Stored("db", ["docker.io/library/db:dev", "ghcr.io/me/db:1"], ["base", "db"])
BLOB, SNAPSHOT = 8 * KIB, 16 * KIB
"""Bytes on the disk: of a file of two blocks, and of a snapshot with the folders around it."""


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_recorded_output_is_one_image_with_all_its_names(version: str) -> None:
    """Including the name from an import; CRI's own record is not a name."""
    listed = recorded(version, "images").decode().splitlines()
    by_id = [line.split()[0] for line in listed if line.startswith("sha256:")]
    named = "\n".join(line for line in listed if not line.startswith("sha256:"))
    none = Output(0, b"HEAD\n")
    store = [Output(0, recorded(version, what)) for what in ("content", "snapshots")]
    ids = Output(0, "\n".join(by_id).encode())
    answers = [Output(0, named.encode()), ids, none, NO_CRICTL, store[0], none, store[1], none]
    (image,) = read_inventory("overlayfs", answers).images
    assert [str(image.image_id)] == by_id
    assert image.names[0] == MYAPP
    assert all(name.startswith(("docker.io/", "import-")) for name in image.names)
    assert image.size > 600_000_000
    assert not image.in_use


def test_size_counts_blobs_and_snapshots_and_own_size_excludes_shared_ones() -> None:
    """Each image has a manifest, a config and two layers; both share the lower one."""
    first, second = inventory(APP, DB).images
    assert first.size == second.size == 4 * BLOB + 2 * SNAPSHOT
    assert first.own_size == second.own_size == 3 * BLOB + SNAPSHOT


def test_size_without_files_is_the_rounded_one_of_ctr() -> None:
    """Rounded up to the disk's blocks; the time is unknown."""
    (image,) = inventory(APP, on_disk=False).images
    assert image.size == 4 * BLOB + 2 * SNAPSHOT
    assert image.since is None


def test_an_image_whose_name_moved_has_only_cris_record() -> None:
    """Its config still has the name and time of its load."""
    mark = {"imgload.loaded/docker.io/library/app:dev": "1732360001.250"}
    (image,) = inventory(attrs.evolve(APP, names=(), labels=mark)).images
    assert image.names == ()
    assert image.records == (str(APP.image_id),)
    assert image.loaded_as == ("docker.io/library/app:dev",)
    assert image.since == pytest.approx(1732360001.25)


def test_since_of_an_image_not_loaded_by_imgload_is_its_files_time() -> None:
    (image,) = inventory(APP).images
    assert image.loaded_as == ()
    assert image.since == pytest.approx(1_700_000_000)


def test_a_name_may_have_spaces() -> None:
    """containerd accepts any name."""
    odd = "docker.io/library/a  b c:1"
    (image,) = inventory(attrs.evolve(APP, names=[odd])).images
    assert image.names == (odd,)


def test_images_pinned_by_cri_are_pinned() -> None:
    """CRI pins the pause image since containerd 1.7."""
    labels = "io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned"
    assert inventory(attrs.evolve(APP, record_labels=labels)).images[0].pinned
    assert not inventory(APP).images[0].pinned


def test_images_pinned_by_imgload_are_recognised() -> None:
    """By a label of imgload's beside CRI's; it counts only together with that."""
    pin, label = "io.cri-containerd.pinned=pinned", "imgload/pinned=pinned"
    [image] = inventory(attrs.evolve(APP, record_labels=f"{pin},{label}")).images
    assert image.own_pins == ("docker.io/library/app:dev",)
    assert not image.pinned_by_others
    [image] = inventory(attrs.evolve(APP, record_labels=pin)).images
    assert (image.own_pins, image.pinned_by_others) == ((), True)
    [image] = inventory(attrs.evolve(APP, record_labels=label)).images
    assert image.own_pins == ()


@pytest.mark.parametrize(
    "container",
    [
        {"imageRef": str(APP.image_id)},
        {"imageId": str(APP.image_id)},
        {"imageRef": f"docker.io/library/app@{APP.manifest}"},
        {"image": {"image": "docker.io/library/app:dev"}},
        {"image": {"image": str(APP.image_id)}},
    ],
)
def test_images_of_cris_containers_are_in_use(container: dict[str, object]) -> None:
    """By ID, name or manifest; exited containers count."""
    assert [i.in_use for i in inventory(APP, DB, in_cri=[container]).images] == [True, False]


@pytest.mark.parametrize(
    ("called", "parent"),
    [
        ("docker.io/library/app:dev", None),
        (str(APP.image_id), None),
        ("docker.io/library/gone:v1", APP.chain[-1]),
    ],
)
def test_containers_and_snapshots_show_use_without_crictl(
    called: str, parent: Digest | None
) -> None:
    """The name may lead to another image by now; the snapshot cannot."""
    found = inventory(APP, DB, containers=[(called, parent)])
    assert [image.in_use for image in found.images] == [True, False]


def test_a_base_image_is_not_in_use_by_containers_of_images_built_on_it() -> None:
    """Its snapshot is needed all the same."""
    base = Stored("base", ["docker.io/library/base:1"], ["base"])
    found = inventory(base, APP, containers=[("docker.io/library/app:dev", APP.chain[-1])])
    assert [image.in_use for image in found.images] == [False, True]


def test_freed_without_counts_what_nothing_else_needs() -> None:
    """Neither another image, nor a container whose image has no record."""
    assert inventory(APP, DB).freed_without(inventory(APP).images) == 3 * BLOB + SNAPSHOT
    both = inventory(APP, DB)
    assert both.freed_without(both.images) == 7 * BLOB + 3 * SNAPSHOT
    held = inventory(APP, containers=[("x", APP.chain[-1])])
    assert held.freed_without(held.images) == 4 * BLOB


def test_an_index_is_the_image_of_its_unpacked_platform() -> None:
    """The index also lists manifests that the node lacks."""
    answers = printed([APP])
    index = Digest.of(b"index")
    row = f"ghcr.io/o/multi:1  application/vnd.oci.image.index.v1+json {index} 1.0 KiB - - \n"
    held = {"m.0": Digest.of(b"absent"), "m.1": APP.manifest}
    labels = ",".join(f"containerd.io/gc.ref.content.{key}={d}" for key, d in held.items())
    answers[0] = Output(0, answers[0].stdout + row.encode())
    answers[4] = Output(0, answers[4].stdout + f"{index}\t900B\t1 hour\t{labels}\n".encode())
    (image,) = read_inventory("overlayfs", answers).images
    assert image.image_id == APP.image_id
    assert image.names == ("docker.io/library/app:dev", "ghcr.io/o/multi:1")


@pytest.mark.parametrize("place", [0, 1, 2, 4, 6])
def test_a_failed_command_makes_the_node_unusable(place: int) -> None:
    """An image in use could seem unused."""
    answers = printed([APP])
    answers[place] = Output(1, b"")
    with pytest.raises(NodeUnusable):
        read_inventory("overlayfs", answers)


def test_two_thousand_images_are_read_in_seconds() -> None:
    """Ten layers each, most of them shared."""
    layers = [f"layer{n}" for n in range(9)]
    images = [
        Stored(f"i{n}", [f"docker.io/library/i:v{n}"], [*layers, f"{n}"]) for n in range(2000)
    ]
    answers = printed(images)
    started = time.process_time()
    found = read_inventory("overlayfs", answers)
    assert len(found.images) == 2000
    assert time.process_time() - started < 10


@pytest.mark.parametrize("name", ["", "s", "sha", "sha256", "sha255:x", "app:v1", "ssha256:"])
def test_all_images_excludes_cris_records_from_the_full_list(name: str) -> None:
    """CRI has one record for each image."""
    others, by_id = (command[-1] for command in all_images())
    pattern = others.removeprefix("name~=/").removesuffix("/")
    assert re.match(pattern, name)
    assert not re.match(pattern, f"sha256:{'0' * 64}")
    assert by_id == "name~=/^sha256:/"


def test_inventory_commands_match_the_expected_outputs() -> None:
    """read_inventory unpacks them by position."""
    commands = [command for group in inventory_commands("native") for command in group]
    assert len(commands) == len(printed([])) == 8
    assert sum("native" in command for command in commands) == 2


outputs = st.builds(Output, st.sampled_from([0, 0, 0, 1]), st.binary(max_size=200))
real = st.sampled_from([*printed([APP, DB]), Output(0, b'{"containers": [null, 3, {"image": 4}]}')])


@given(st.lists(outputs | real, min_size=8, max_size=8))
def test_any_output_is_parsed_or_the_node_is_unusable(answers: list[Output]) -> None:
    """Never an error other than ImgloadError."""
    try:
        assert isinstance(read_inventory("overlayfs", answers), Inventory)
    except ImgloadError:
        assert any(answer.exit_status for answer in answers)


DEV = "docker.io/library/app:dev"
OLD, NEW = Stored("old", [DEV]), Stored("new", [DEV])
TWO_NAMES = Stored("db", ["docker.io/library/db:1", "ghcr.io/me/db:1"])
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
    scripts = {
        "ctr": CTR.replace("{0}", str(stored)),
        "crictl": "exit 127",
        "containerd": "echo version = 2",
    }
    return Node(name, LocalEngine(stored, scripts), container)


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    stopped = attrs.evolve(RUNNING, state="exited")
    lost = Stored("lost", labels={"imgload.loaded/docker.io/library/app:dev": "17"})
    nodes = [
        node(tmp_path, "kind-control-plane", OLD, TWO_NAMES),
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
        ("docker.io/library/db:1", TWO_NAMES.image_id, ["kind-control-plane"]),
        ("ghcr.io/me/db:1", TWO_NAMES.image_id, ["kind-control-plane"]),
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
    programs = {"ctr": "exit 1", "journalctl": "echo failed"}
    dead = Node("kind-worker", LocalEngine(tmp_path, programs), RUNNING)
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
    nodes = [node(tmp_path, "a", OLD, TWO_NAMES), node(tmp_path, "b", lost, NEW)]
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
            "pinned_by_imgload": False,
            "loaded_by_imgload": True,
            "since": "1970-01-01T00:00:17+00:00",
        }
    ]
