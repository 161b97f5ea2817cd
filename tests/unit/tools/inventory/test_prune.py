"""Selecting images to remove."""

from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import UsageError
from imgload.oci.digest import Digest
from imgload.tools.inventory.node_images import NodeImage
from imgload.tools.inventory.prune import Policy, choose

NOW = 1_800_000_000.0
DAY = 86_400.0
APP = "docker.io/library/app"


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
