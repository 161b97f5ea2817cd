"""Platforms are compared in containerd's normal form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid, UsageError
from imgload.oci.platform import ANY_PLATFORM, Platform


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (("linux", "amd64", ""), "linux/amd64"),
        (("linux", "x86_64", ""), "linux/amd64"),
        (("linux", "x86-64", ""), "linux/amd64"),
        (("linux", "amd64", "v1"), "linux/amd64"),
        (("linux", "amd64", "v3"), "linux/amd64/v3"),
        (("Linux", "AMD64", "V2"), "linux/amd64/v2"),
        (("linux", "i386", ""), "linux/386"),
        (("linux", "aarch64", ""), "linux/arm64"),
        (("linux", "arm64", "v8"), "linux/arm64"),
        (("linux", "aarch64", "v8"), "linux/arm64"),
        (("linux", "arm64", "8"), "linux/arm64"),
        (("linux", "arm64", "v9"), "linux/arm64/v9"),
        (("linux", "arm", ""), "linux/arm/v7"),
        (("linux", "arm", "7"), "linux/arm/v7"),
        (("linux", "arm", "6"), "linux/arm/v6"),
        (("linux", "arm", "v5"), "linux/arm/v5"),
        (("linux", "armhf", ""), "linux/arm/v7"),
        (("linux", "armhf", "v6"), "linux/arm/v7"),
        (("linux", "armel", ""), "linux/arm/v6"),
        (("linux", "armv7l", ""), "linux/arm/v7"),
        (("linux", "riscv64", ""), "linux/riscv64"),
        (("macos", "arm64", ""), "darwin/arm64"),
        (("", "amd64", ""), "linux/amd64"),
    ],
)
def test_platforms_are_normalised_like_in_containerd(
    written: tuple[str, str, str], normal: str
) -> None:
    """`platforms.Normalize`; names of `uname -m` are accepted as well."""
    assert str(Platform.of(*written)) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("AArch64", "linux/arm64"),
        ("s390x", "linux/s390x"),
        ("linux/foo", "linux/foo"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("LINUX/AMD64", "linux/amd64"),
    ],
)
def test_platform_parses_os_and_architecture(text: str, normal: str) -> None:
    """OS/ARCH[/VARIANT], or an architecture alone."""
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "linux/",
        "/amd64",
        "a/b/c/d",
        "linux amd64",
        "linux/amd64\n",
        "linux/amd64 ",
        "linux,amd64",
        "linux/$(id)",
        "línux/amd64",
        "linux//v8",
        "foo",
        "linux",
    ],
)
def test_a_malformed_platform_is_wrong_usage(text: str) -> None:
    """It becomes an argument of ctr."""
    with pytest.raises(UsageError) as caught:
        Platform.parse(text)
    assert "linux/arm64" in caught.value.hint


@given(st.text(max_size=40) | st.text("linuxarmv678/", max_size=20))
def test_normalising_twice_changes_nothing(text: str) -> None:
    """Any text is a platform or wrong usage."""
    try:
        platform = Platform.parse(text)
    except UsageError:
        return
    assert Platform.parse(str(platform)) == platform
    assert Platform.from_json(platform.to_json()) == platform


@pytest.mark.parametrize("value", [None, 5, "amd64", [], {}, {"os": "linux"}, {"architecture": ""}])
def test_from_json_returns_none_without_an_architecture(value: object) -> None:
    """An index entry may have no platform."""
    assert Platform.from_json(value) is None


@pytest.mark.parametrize(
    "value",
    [
        {"architecture": "\ud800"},
        {"architecture": "amd64", "os": "linux/x"},
        {"architecture": {"os": 1}},
        {"architecture": ["amd64"]},
        {"architecture": "a" * 65},
        {"architecture": "arm", "variant": "\x1b[2J"},
        {"architecture": "amd64", "os": 5},
        {"architecture": "é"},
    ],
)
def test_from_json_rejects_what_is_not_a_word(value: object) -> None:
    """It would reach the terminal and the arguments of ctr (found by fuzzing)."""
    with pytest.raises(ArchiveInvalid, match="not a platform"):
        Platform.from_json(value)


def test_attestations_of_buildkit_have_an_unknown_platform() -> None:
    """unknown/unknown is nothing that runs (kind #3795)."""
    unknown = Platform.from_json({"os": "unknown", "architecture": "unknown"})
    assert unknown is not None
    assert unknown.is_unknown
    assert not Platform("linux", "amd64").is_unknown


@pytest.mark.parametrize(
    ("node", "image", "runs"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/386", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm64", "linux/arm/v7", True),
        ("linux/arm", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_runs_is_true_without_emulation(node: str, image: str, *, runs: bool) -> None:
    """Other images are loaded with a warning."""
    assert Platform.parse(node).runs(Platform.parse(image)) is runs


@pytest.mark.parametrize(
    ("wanted", "there", "best"),
    [
        ("linux/amd64", "linux/amd64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64 linux/amd64/v2", "linux/amd64/v2"),
        ("linux/amd64/v3", "linux/amd64/v4 linux/amd64", "linux/amd64"),
        ("linux/amd64", "linux/amd64/v2 linux/arm64", None),
        ("linux/arm/v7", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/arm64/v9", "linux/arm64 linux/arm/v7", "linux/arm64"),
        ("linux/arm64", "linux/arm/v7", None),
        ("linux/riscv64", "linux/amd64", None),
    ],
)
def test_best_is_the_newest_variant_that_is_not_newer(
    wanted: str, there: str, best: str | None
) -> None:
    """`platforms.Only` of containerd."""
    found = Platform.parse(wanted).best([Platform.parse(text) for text in there.split()])
    assert (str(found) if found else None) == best


def test_an_image_without_an_architecture_runs_everywhere() -> None:
    """A platform is not invented; a machine prefers an image that is for it."""
    amd, arm = Platform("linux", "amd64"), Platform("linux", "arm64")
    assert Platform.from_json({"os": "linux"}) is None
    for unspecified in (ANY_PLATFORM, Platform("linux", "")):
        assert amd.runs(unspecified)
        assert arm.runs(unspecified)
        assert amd.best([arm, unspecified]) == unspecified
        assert amd.best([unspecified, amd]) == amd


def test_os_features_and_os_version_order_images_for_one_platform() -> None:
    """They do not distinguish platforms."""
    entry = {"os": "linux", "architecture": "amd64"}
    extras: list[dict[str, object]] = [{"os.features": ["a"]}, {"os.version": "10"}, {}]
    platforms = [Platform.from_json({**entry, **extra}) for extra in extras]
    assert platforms == [Platform("linux", "amd64")] * 3
    ranks = [platform.rank for platform in platforms if platform]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 3
