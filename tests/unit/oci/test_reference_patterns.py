"""Patterns of image names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.oci.reference import (
    engine_filter,
    familiar_name,
    matches,
    parse_patterns,
    pod_name,
    repositories_of,
    repository_of,
    require_repositories,
)
from tests.unit.bounds import within

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
def test_matches_takes_full_and_short_names(pattern: str, expected: set[str]) -> None:
    """A part of a name does not match without a glob."""
    assert {name for name in (APP, MINE) if matches(name, [pattern])} == expected


def test_matches_takes_a_name_that_kubernetes_rejects() -> None:
    """containerd accepts any name."""
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
def test_repository_of_drops_tag_and_digest(name: str, repository: str) -> None:
    """A port is no tag."""
    assert repository_of(name) == repository


def test_repositories_of_skips_names_of_an_import() -> None:
    """`ctr images import --digests` gives such a name to everything (kind #4028)."""
    junk = [f"import-2026-11-23@{DIGEST}", f"docker.io/library/import-2026-11-23@{DIGEST}"]
    assert repositories_of([APP, *junk]) == {"docker.io/library/app"}
    assert repositories_of(["docker.io/library/import-2026-11-23:v1"])


def test_familiar_name_is_the_short_form() -> None:
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
def test_require_repositories_rejects_a_tag_or_digest(text: str, hint: str) -> None:
    """The hint has the repository."""
    with pytest.raises(UsageError) as caught:
        require_repositories([text])
    assert caught.value.hint == hint


def test_require_repositories_accepts_globs() -> None:
    """A port is no tag."""
    require_repositories(["app", "*", "localhost:5000/app", "ghcr.io/me/*"])


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("app", "app:dev"),
        ("app", "docker.io/library/app:v1"),
        ("app:*", "app"),
        ("docker.io/library/app", "app:dev"),
        ("index.docker.io/library/app:*", "app:dev"),
        ("me/app", "docker.io/me/app:dev"),
        ("ghcr.io/me/*", "ghcr.io/me/web/front:dev"),
        ("docker.io/library/*", "app:dev"),
        ("*:5000/*:dev", "localhost:5000/app:dev"),
        ("*", "ghcr.io/me/app:dev"),
        ("*/app", "ghcr.io/me/app:dev"),
        ("localhost/*", "localhost/app:dev"),
    ],
)
def test_a_pattern_matches_names_of_an_engine(pattern: str, name: str) -> None:
    """Short and full names alike, and without a tag every tag."""
    assert pod_name(name, parse_patterns([pattern]))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("app", "apple:dev"),
        ("app", "me/app:dev"),
        ("app:dev", "app:dev2"),
        ("ghcr.io/me/*", "ghcr.io/meme/app:dev"),
        ("*:dev", "app:v1"),
        ("*", f"app@{DIGEST}"),
        ("*", "<none>:<none>"),
        ("*", "/var/tmp/dir1/saveio"),
        ("*", "5d3f" * 16),
    ],
)
def test_a_pattern_does_not_match(pattern: str, name: str) -> None:
    """Other names, pinned names, or invalid ones."""
    assert pod_name(name, parse_patterns([pattern])) is None


@pytest.mark.parametrize(
    "text", ["", ":", "app:", ":dev", "App", "a b", "app@sha256:00", "$(id)", "app:dev/", "app:-x"]
)
def test_parse_patterns_rejects_what_no_image_can_match(text: str) -> None:
    """A watch would wait for it without end."""
    with pytest.raises(ReferenceInvalid) as caught:
        parse_patterns([text])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A:B:C", "'B:C' is not a tag"),
        ("a*:B:C", "'B:C' is not a tag"),
        ("APP", "'APP' is not a repository"),
        ("APP:dev", "'APP' is not a repository"),
        ("APP:dev-*", "'APP' is not a repository"),
        ("ghcr.io/APP:dev-?", "'APP' is not a repository"),
    ],
)
def test_parse_patterns_reports_the_whole_text(text: str, why: str) -> None:
    """All of it, and what is wrong with it."""
    with pytest.raises(ReferenceInvalid) as caught:
        parse_patterns([text])
    assert repr(text) in caught.value.message
    assert why in caught.value.message


@pytest.mark.parametrize(
    ("held", "pattern", "wanted"),
    [
        ("localhost/app:dev", "app", "app:dev"),
        ("localhost/me/app:dev", "*", "me/app:dev"),
        ("localhost/app:dev", "localhost/*", "localhost/app:dev"),
        ("docker.io/library/app:dev", "app", "app:dev"),
    ],
)
def test_meant_returns_the_name_in_a_pod_spec(held: str, pattern: str, wanted: str) -> None:
    """Without the localhost/ of Podman."""
    assert pod_name(held, parse_patterns([pattern])) == wanted


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("app", "app:*"),
        ("app:dev-*", "app:dev-*"),
        ("localhost:5000/app", "localhost:5000/app:*"),
        ("ghcr.io/me/*", None),
        ("app:v[12]", None),
    ],
)
def test_engine_filter_exists_if_the_meaning_is_the_same(
    pattern: str, expected: str | None
) -> None:
    """An engine's ``*`` stands for no slash."""
    assert engine_filter(pattern) == expected


@given(st.text(max_size=40), st.text(alphabet="ab*?[]!:/.-", max_size=40))
def test_any_text_is_a_pattern_or_rejected(held: str, text: str) -> None:
    """And none takes long, or fails otherwise."""
    with within(1.0):
        try:
            patterns = parse_patterns([text])
        except ReferenceInvalid:
            return
        pod_name(held, patterns)
        pod_name("a" * 200 + ":b", patterns)
