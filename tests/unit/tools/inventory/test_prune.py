"""What may go."""

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


def test_the_newest_builds_of_a_repository_stay() -> None:
    """However many tags there are; three of them, if nothing is said."""
    builds = [build(f"v{n}", age=n) for n in range(5)]
    assert gone(Policy(), *reversed(builds)) == builds[3:]
    assert gone(Policy(keep=1), *builds) == builds[1:]
    assert gone(Policy(keep=0), *builds) == builds
    kept = reasons(Policy(keep=2), *builds)
    assert kept[builds[0].image_id] == f"the newest of {APP}: {APP}:v0"
    assert kept[builds[1].image_id] == f"among the newest 2 of {APP}"


@pytest.mark.parametrize("decides", ["created", "arrived"])
def test_between_builds_of_one_age_the_creation_time_decides(decides: str) -> None:
    """Then the order of arrival."""
    builds = [build(f"v{n}", **dict[str, Any]({decides: NOW + n})) for n in range(3)]
    for order in (builds, builds[::-1]):
        assert set(gone(Policy(keep=1), *order)) == set(builds[:2])


def test_a_build_without_a_name_goes_whatever_is_kept() -> None:
    """No pod can ask for it; it is not counted either."""
    lost = build(age=1)
    named = [build("v1", age=2), build("v2", age=3)]
    assert gone(Policy(keep=2), lost, *named) == [lost]


def test_each_repository_keeps_its_own() -> None:
    """The newest of another is none of it."""
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
def test_what_is_needed_stays(traits: dict[str, Any], reason: str) -> None:
    """Said for each image."""
    image = build("v1", age=9, **traits)
    assert gone(Policy(keep=0), image) == []
    assert reasons(Policy(keep=0), image) == {image.image_id: reason}


def test_told_so_what_imgload_did_not_load_goes_too() -> None:
    """But nothing that is in use or pinned."""
    foreign = build("v1", loaded_as=())
    used = build("v2", loaded_as=(), in_use=True)
    pinned = build("v3", loaded_as=(), pinned=True)
    assert gone(Policy(keep=0, everything=True), foreign, used, pinned) == [foreign]


def test_an_image_that_is_also_named_elsewhere_stays() -> None:
    """Every name goes, or none: the other repository was not asked for."""
    both = build("v1", age=5)
    both = attrs.evolve(both, names=(*both.names, "ghcr.io/me/app:v1"))
    assert gone(Policy(("app",), keep=0), both) == []
    assert reasons(Policy(("app",), keep=0), both)[both.image_id] == "also named in ghcr.io/me/app"
    assert gone(Policy(("app", "ghcr.io/me/app"), keep=0), both) == [both]
    newest_there = [build("v2", age=1), both]
    assert gone(Policy(keep=1), *newest_there) == []


def test_what_only_an_import_named_counts_as_unnamed() -> None:
    """`ctr images import --digests` gives each image such a name (kind #4028)."""
    junk = f"import-2026-11-23@{Digest.of(b'manifest')}"
    image = attrs.evolve(build(age=1), names=(junk,))
    assert gone(Policy(), image) == [image]


def test_only_what_is_old_enough_goes() -> None:
    """An age that is not known is none."""
    policy = Policy(keep=0, older_than=timedelta(days=2))
    old, young, unknown = build("a", age=2), build("b", age=1.9), build("c", since=None)
    assert gone(policy, old, young, unknown) == [old]
    assert set(reasons(policy, old, young, unknown).values()) == {"too young"}


def test_an_image_that_is_in_use_counts_among_the_newest() -> None:
    """It is one of those that are kept anyway."""
    builds = [build("v1", age=1, in_use=True), build("v2", age=2), build("v3", age=3)]
    assert gone(Policy(keep=2), *builds) == builds[2:]


def test_a_name_that_seems_to_be_two_images_is_left_alone() -> None:
    """A line break in a name can look like that."""
    first, second = build("v1", age=1), build("v1", age=2)
    assert gone(Policy(keep=0), first, second) == []
    assert set(reasons(Policy(keep=0), first, second).values()) == {"its name is unclear"}


def test_a_policy_makes_sense() -> None:
    """Less than none cannot be kept, and a tag is no repository."""
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
def test_whatever_is_asked_what_is_needed_stays(policy: Policy, images: list[NodeImage]) -> None:
    """And each image of the repositories asked for either goes or stays."""
    going, kept = choose(images, policy, NOW)
    assert not any(image.in_use or image.pinned for image in going)
    assert policy.everything or all(image.loaded_as for image in going)
    assert not {i.image_id for i in going} & {k.image.image_id for k in kept if k.reason == ""}
    assert len(going) + len(kept) <= len(images)
    if policy.repositories in {(), ("*",)}:
        assert len(going) + len(kept) == len(images)
