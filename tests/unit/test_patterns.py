"""Which names are meant."""

import pytest

from imgload.errors import UsageError
from imgload.patterns import (
    familiar_name,
    matches,
    repositories_of,
    repository_of,
    require_repositories,
)

APP = "docker.io/library/app:dev"
MINE = "ghcr.io/me/app:v1"
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("app", {APP}),
        ("app:dev", {APP}),
        ("docker.io/library/app", {APP}),
        (APP, {APP}),
        ("app:*", {APP}),
        ("*app*", {APP, MINE}),
        ("ghcr.io/*", {MINE}),
        ("ghcr.io/me/app", {MINE}),
        ("*:v?", {MINE}),
        ("ap", set()),
        ("APP", set()),
        ("[ab]pp", {APP}),
    ],
)
def test_names_and_repositories_are_matched_in_full_and_as_people_write_them(
    pattern: str, expected: set[str]
) -> None:
    """Part of a name matches nothing, unless by a glob."""
    assert {name for name in (APP, MINE) if matches(name, [pattern])} == expected


def test_a_name_that_kubernetes_would_not_take_is_matched_as_it_is() -> None:
    """Containerd takes any."""
    odd = "docker.io/library/A b:1"
    assert matches(odd, ["*A b*"])
    assert matches(odd, [odd])
    assert not matches(odd, ["A b"])
    assert repository_of(odd) == familiar_name(odd) == odd


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        (APP, "docker.io/library/app"),
        (MINE, "ghcr.io/me/app"),
        (f"{MINE}@{DIGEST}", "ghcr.io/me/app"),
        (f"localhost:5000/app@{DIGEST}", "localhost:5000/app"),
    ],
)
def test_a_name_has_its_repository(name: str, repository: str) -> None:
    """A port is no tag."""
    assert repository_of(name) == repository


def test_what_only_an_import_gave_is_no_repository() -> None:
    """`ctr images import --digests` gives such a name to everything (kind #4028)."""
    junk = [f"import-2026-11-23@{DIGEST}", f"docker.io/library/import-2026-11-23@{DIGEST}"]
    assert repositories_of([APP, *junk]) == {"docker.io/library/app"}
    assert repositories_of(["docker.io/library/import-2026-11-23:v1"])


def test_names_are_shown_as_people_write_them() -> None:
    """What needs no registry has none."""
    assert [familiar_name(name) for name in (APP, MINE)] == ["app:dev", MINE]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("app:dev", "imgload prune app"),
        ("localhost:5000/app:v1", "imgload prune localhost:5000/app"),
        (f"app@{DIGEST}", "imgload prune app"),
        (f"app:dev@{DIGEST}", "imgload prune app"),
    ],
)
def test_one_image_is_no_repository(text: str, hint: str) -> None:
    """The hint is the call that was meant."""
    with pytest.raises(UsageError) as caught:
        require_repositories([text])
    assert caught.value.hint == hint


def test_repositories_and_globs_are_taken() -> None:
    """A port is no tag."""
    require_repositories(["app", "*", "localhost:5000/app", "ghcr.io/me/*"])
