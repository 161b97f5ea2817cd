"""Selecting images to remove, and the commands that remove them, in a real shell."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable, UsageError
from imgload.oci.digest import Digest
from imgload.tools.inventory.base import Inventory, NodeImage
from imgload.tools.inventory.prune import Policy, choose
from imgload.tools.inventory.runtimes import remove_images
from tests.unit.fakes import RUNNING, LocalEngine

NOW = 1_800_000_000.0
DAY = 86_400.0
APP = "docker.io/library/app"
ID = Digest.of(b"app")
PROGRAMS = {"containerd": "echo version = 2"}
BY_IMPORT = f"import-2026-11-23@{ID}"


def build(*tags: str, age: float = 0.0, repository: str = APP, **traits: Any) -> NodeImage:
    """Return an image that imgload loaded, `age` days ago."""
    names = tuple(f"{repository}:{tag}" for tag in tags)
    image = NodeImage(
        Digest.of(f"{names}{age}".encode()),
        names,
        loaded_as=names or (f"{repository}:dev",),
        since=NOW - age * DAY,
    )
    return attrs.evolve(image, **traits)


def gone(policy: Policy, *images: NodeImage) -> list[NodeImage]:
    return list(choose(images, policy, NOW)[0])


def reasons(policy: Policy, *images: NodeImage) -> dict[Digest, str]:
    return {kept.image.image_id: kept.reason for kept in choose(images, policy, NOW)[1]}


def test_choose_keeps_the_newest_builds_of_a_repository() -> None:
    """Three by default, however many tags they have."""
    builds = [build(f"v{n}", age=n) for n in range(5)]
    assert gone(Policy(), *reversed(builds)) == builds[3:]
    assert gone(Policy(keep=1), *builds) == builds[1:]
    assert gone(Policy(keep=0), *builds) == builds
    kept = reasons(Policy(keep=2), *builds)
    assert kept[builds[0].image_id] == f"the newest of {APP}: {APP}:v0"
    assert kept[builds[1].image_id] == f"among the newest 2 of {APP}"


@pytest.mark.parametrize("decides", ["created", "arrived"])
def test_choose_orders_builds_of_one_age_by_creation_time(decides: str) -> None:
    """Then by arrival."""
    builds = [build(f"v{n}", **dict[str, Any]({decides: NOW + n})) for n in range(3)]
    for order in (builds, builds[::-1]):
        assert set(gone(Policy(keep=1), *order)) == set(builds[:2])


def test_choose_removes_unnamed_builds_whatever_keep_is() -> None:
    """No pod can use one; it does not count as kept."""
    lost = build(age=1)
    named = [build("v1", age=2), build("v2", age=3)]
    assert gone(Policy(keep=2), lost, *named) == [lost]


def test_choose_counts_each_repository_separately() -> None:
    ours = [build("v1", age=1), build("v2", age=2)]
    theirs = [build("v1", age=3, repository="ghcr.io/me/db")]
    assert gone(Policy(keep=1), *ours, *theirs) == [ours[1]]
    assert gone(Policy(("app",), keep=0), *ours, *theirs) == ours
    assert gone(Policy(("ghcr.io/*",), keep=0), *ours, *theirs) == theirs


@pytest.mark.parametrize(
    ("traits", "reason"),
    [
        ({"in_use": True}, "in use by a container"),
        ({"pinned": True}, "pinned"),
        ({"loaded_as": ()}, "not loaded by imgload"),
    ],
)
def test_choose_keeps_needed_images_with_a_reason(traits: dict[str, Any], reason: str) -> None:
    image = build("v1", age=9, **traits)
    assert gone(Policy(keep=0), image) == []
    assert reasons(Policy(keep=0), image) == {image.image_id: reason}


def test_choose_removes_unpinned_images_only_if_imgload_pinned_them() -> None:
    ours = build("v1", age=9, pinned=True, own_pins=(f"{APP}:v1",))
    both = build("v2", age=9, pinned=True, own_pins=(f"{APP}:v2",), pinned_by_others=True)
    assert gone(Policy(keep=0), ours, both) == []
    assert gone(Policy(keep=0, unpin=True), ours, both) == [ours]
    assert reasons(Policy(keep=0, unpin=True), ours, both) == {both.image_id: "pinned"}


def test_choose_everything_removes_images_not_loaded_by_imgload() -> None:
    """But none that is in use or pinned."""
    foreign = build("v1", loaded_as=())
    used = build("v2", loaded_as=(), in_use=True)
    pinned = build("v3", loaded_as=(), pinned=True)
    assert gone(Policy(keep=0, everything=True), foreign, used, pinned) == [foreign]


def test_choose_keeps_an_image_with_a_name_in_another_repository() -> None:
    """All its names are removed, or none."""
    both = build("v1", age=5)
    both = attrs.evolve(both, names=(*both.names, "ghcr.io/me/app:v1"))
    assert gone(Policy(("app",), keep=0), both) == []
    assert reasons(Policy(("app",), keep=0), both)[both.image_id] == "also named in ghcr.io/me/app"
    assert gone(Policy(("app", "ghcr.io/me/app"), keep=0), both) == [both]
    newest_there = [build("v2", age=1), both]
    assert gone(Policy(keep=1), *newest_there) == []


def test_choose_treats_import_names_as_unnamed() -> None:
    """`ctr images import --digests` adds such a name to each image (kind #4028)."""
    junk = f"import-2026-11-23@{Digest.of(b'manifest')}"
    image = attrs.evolve(build(age=1), names=(junk,))
    assert gone(Policy(), image) == [image]


def test_choose_keeps_images_younger_than_older_than() -> None:
    """An unknown age counts as none."""
    policy = Policy(keep=0, older_than=timedelta(days=2))
    old, young, unknown = build("a", age=2), build("b", age=1.9), build("c", since=None)
    assert gone(policy, old, young, unknown) == [old]
    assert set(reasons(policy, old, young, unknown).values()) == {"too young"}


def test_choose_counts_an_image_in_use_among_the_newest() -> None:
    builds = [build("v1", age=1, in_use=True), build("v2", age=2), build("v3", age=3)]
    assert gone(Policy(keep=2), *builds) == builds[2:]


def test_choose_keeps_images_with_an_ambiguous_name() -> None:
    """A name with a line break can look like that."""
    first, second = build("v1", age=1), build("v1", age=2)
    assert gone(Policy(keep=0), first, second) == []
    assert set(reasons(Policy(keep=0), first, second).values()) == {"its name is unclear"}


def test_policy_rejects_negative_keep_and_tags() -> None:
    with pytest.raises(UsageError, match="keep"):
        Policy(keep=-1)
    with pytest.raises(UsageError, match="not a repository"):
        Policy(("app:dev",))


policies = st.builds(
    Policy,
    repositories=st.sampled_from([(), ("app",), ("*",), ("ghcr.io/*", "app")]),
    keep=st.integers(0, 4),
    older_than=st.sampled_from([None, timedelta(days=2)]),
    everything=st.booleans(),
)
builds_of = st.builds(
    build,
    st.sampled_from(["v1", "v2", "v3"]),
    age=st.integers(0, 5),
    repository=st.sampled_from([APP, "ghcr.io/me/db"]),
    in_use=st.booleans(),
    pinned=st.booleans(),
    loaded_as=st.sampled_from([(), (f"{APP}:v1",)]),
)


@given(policies, st.lists(builds_of, max_size=12))
def test_choose_never_removes_needed_images(policy: Policy, images: list[NodeImage]) -> None:
    """Each image of the selected repositories is either removed or kept."""
    going, kept = choose(images, policy, NOW)
    assert not any(image.in_use or image.pinned for image in going)
    assert policy.everything or all(image.loaded_as for image in going)
    assert not {i.image_id for i in going} & {k.image.image_id for k in kept if k.reason == ""}
    assert len(going) + len(kept) <= len(images)
    if policy.repositories in {(), ("*",)}:
        assert len(going) + len(kept) == len(images)


def removed(folder: Path, *records: str, taken: str = "docker.io/library/other:v1") -> list[str]:
    """Return how ctr was called to change something."""
    log = folder / "log"
    script = f"""case "$*" in
      *" tag "*|*" rm "*) echo "$*" >>{log} ;;
      version) echo Server: ;;
      *" ls -q "*) for word; do case "$word" in name==*,target*)
        word=${{word#name==\\"}}; echo "${{word%%\\"*}}";; esac; done ;;
      *) echo HEAD ;;
    esac"""
    image = NodeImage(ID, records=records, targets=(ID,))
    other = attrs.evolve(image, image_id=Digest.of(b"other"), records=(taken,))
    node = Node("kind-worker", LocalEngine(folder, PROGRAMS | {"ctr": script}), RUNNING)
    after = remove_images(node, [image], Inventory((image, other)))
    assert after.images == ()
    return log.read_text().splitlines()


def test_remove_images_removes_all_records_in_one_synchronous_call(tmp_path: Path) -> None:
    """A name is never taken for an option."""
    lines = removed(tmp_path, "docker.io/library/app:dev", "-x", str(ID))
    assert lines == [f"-n k8s.io images rm --sync -- docker.io/library/app:dev -x {ID}"]


def test_remove_images_first_tags_a_record_with_its_normalised_name(tmp_path: Path) -> None:
    """Else CRI lists the image for ever (kind #3369)."""
    full = f"docker.io/library/{BY_IMPORT}"
    assert removed(tmp_path, BY_IMPORT) == [
        f"-n k8s.io images tag -- {BY_IMPORT} {full}",
        f"-n k8s.io images rm --sync -- {BY_IMPORT} {full}",
    ]


def test_remove_images_does_not_take_another_images_name(tmp_path: Path) -> None:
    """It would be removed with the image."""
    lines = removed(tmp_path, "app:v1", taken="docker.io/library/app:v1")
    assert lines == ["-n k8s.io images rm --sync -- app:v1"]


def test_remove_images_fails_if_the_node_cannot_be_listed_afterwards(tmp_path: Path) -> None:
    node = Node("kind-worker", LocalEngine(tmp_path, {"ctr": "exit 1"}), RUNNING)
    image = NodeImage(ID, records=("app:v1",))
    with pytest.raises(NodeUnusable, match="kind-worker"):
        remove_images(node, [image], Inventory((image,)))
