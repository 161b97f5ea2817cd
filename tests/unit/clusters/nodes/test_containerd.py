"""What ctr and containerd printed on real nodes, and on worse ones."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.containerd import (
    Content,
    parse_content,
    parse_images,
    parse_snapshots,
    parse_snapshotter,
    parse_unseen,
    parse_version,
)
from imgload.core.errors import ImgloadError
from imgload.oci.digest import Digest, chain_ids
from tests.unit.recordings import MYAPP, VERSIONS, inspected, recorded

LOADED = ("1.7", "2.1")
MANIFEST = Digest("sha256", "0eb7be528ec45deeaea8c9a17aede083a7a7bc8b7241ddfce668f2683b712c7f")
CONFIG = Digest("sha256", "a66a7ae1c90f95460e4a63cab29fb411e9c4f98ef72e45059e0e573c0f340ff4")


def text(version: str, what: str) -> str:
    return recorded(version, what).decode()


@pytest.mark.parametrize(("version", "parsed"), [("1.6", (1, 6)), ("1.7", (1, 7)), ("2.1", (2, 1))])
def test_the_servers_version_is_read(version: str, parsed: tuple[int, int]) -> None:
    """Debian's and Go's suffixes do not disturb."""
    assert parse_version(text(version, "version")) == parsed


@pytest.mark.parametrize(
    ("said", "parsed"),
    [
        ("Client:\n  Version: 2.0.0\n\nServer:\n  Version:  v1.7.24\n", (1, 7)),
        ("Server:\n  Version:  10.21.3-rc.1+k3s1\n", (10, 21)),
        ("Client:\n  Version: 2.0.0\n", (0, 0)),
        ("", (0, 0)),
        ("Server:\n  Version:  unknown\n", (0, 0)),
    ],
)
def test_a_version_that_is_not_there_is_the_oldest(said: str, parsed: tuple[int, int]) -> None:
    """The client's does not count."""
    assert parse_version(said) == parsed


def test_a_version_of_5000_digits_is_no_crash() -> None:
    """Python refuses to make a number of it."""
    assert parse_version(f"Server:\n  Version:  {'1' * 5000}.0\n") == (0, 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_snapshotter_is_read_of_a_real_config(version: str) -> None:
    """Versions 2 and 3, as containerd itself dumps them (kind #2543, #3871)."""
    assert parse_snapshotter(text(version, "config")) == "overlayfs"


CONFIGS = {
    1: '[plugins.cri.containerd]\nsnapshotter = "native"',
    2: 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"',
    3: "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'",
    4: "version = 4\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'",
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_config_version_is_understood(config: str) -> None:
    """Also 4, which kind does not know yet (kind #3871)."""
    assert parse_snapshotter(config) == "native"


@pytest.mark.parametrize(
    "config",
    [
        "version = 3",
        "plugins = 5",
        "plugins = ['a']",
        "[plugins]\n'io.containerd.cri.v1.images' = 5",
        "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = ''",
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nsnapshotter = 'native'",
        "[plugins.'io.containerd.transfer.v1.local'.unpack_config]\nsnapshotter = 'native'",
    ],
)
def test_a_config_without_the_setting_has_the_documented_default(config: str) -> None:
    """Another plugin's snapshotter, or another runtime's, is not CRI's."""
    assert parse_snapshotter(config) == "overlayfs"


@pytest.mark.parametrize(
    "config",
    [
        "",
        "\n",
        "not toml at all {{{",
        "time=x level=warning msg=y\n[plugins",
        "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 5",
        "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = '; reboot'",
        "a = " + "[" * 5000,
        "a = " + "9" * 5000,
    ],
)
def test_an_unreadable_config_has_no_snapshotter(config: str) -> None:
    """No default is assumed; tomllib raises other errors for what is nested without end."""
    assert parse_snapshotter(config) is None


@pytest.mark.parametrize(
    "config",
    [
        (
            "[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'x'\n"
            "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nsnapshotter = 'native'"
        ),
        (
            "[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'overlayfs'\n"
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nsnapshotter = 'native'"
        ),
    ],
)
def test_the_default_runtimes_snapshotter_goes_first(config: str) -> None:
    """Pods that name no RuntimeClass get it (containerd internal/cri RuntimeSnapshotter)."""
    assert parse_snapshotter(config) == "native"


@pytest.mark.parametrize("version", LOADED)
def test_image_records_are_read(version: str) -> None:
    """Names with the digest each leads to, junk that others left included."""
    assert parse_images(text(version, "images")) == {
        MYAPP: MANIFEST,
        f"import-2026-11-23@{MANIFEST}": MANIFEST,
        str(CONFIG): MANIFEST,
    }


@pytest.mark.parametrize("version", LOADED)
def test_records_that_cri_has_not_taken_over_are_read(version: str) -> None:
    """The label is missing, whatever else is there (containerd #9039)."""
    listed = text(version, "images")
    assert parse_unseen(listed) == frozenset()
    told = "io.cri-containerd.image=managed"
    lines = [line.replace(told, "-", 1) if MYAPP in line else line for line in listed.split("\n")]
    assert parse_unseen("\n".join(lines)) == {MYAPP}
    assert parse_unseen(listed.replace(told, f"a=b,{told}")) == frozenset()


@pytest.mark.parametrize("version", LOADED)
def test_the_content_store_is_read(version: str) -> None:
    """Each manifest leads to its config by containerd's own label."""
    content = parse_content(text(version, "content"))
    assert content.configs == {MANIFEST: CONFIG}
    assert len(content.blobs) == 5
    assert content.blobs >= {MANIFEST, CONFIG}
    assert content.configs_under(MANIFEST) == {CONFIG}
    assert content.configs_under(CONFIG) == frozenset()


@pytest.mark.parametrize("version", LOADED)
def test_the_snapshots_are_the_chain_ids_of_the_image(version: str) -> None:
    """What CRI calls chainID is the top one."""
    info = inspected(version)["info"]
    diff_ids = tuple(map(Digest.parse, info["imageSpec"]["rootfs"]["diff_ids"]))
    assert parse_snapshots(text(version, "snapshots")) == set(chain_ids(diff_ids))


def test_an_empty_node_has_nothing() -> None:
    """As recorded on 1.6: three headings."""
    assert parse_images(text("1.6", "images")) == {}
    assert parse_content(text("1.6", "content")) == Content()
    assert parse_snapshots(text("1.6", "snapshots")) == frozenset()


def test_only_committed_snapshots_count() -> None:
    """One that is still being unpacked is Active."""
    one, two = Digest.of(b"1"), Digest.of(b"2")
    said = (
        f"KEY PARENT KIND\n{one}  Committed\n{two} {one} Active\nextract-1 sha256:x {one} Active\n"
    )
    assert parse_snapshots(said) == {one}


def index_of(*children: Digest) -> str:
    labels = ",".join(f"containerd.io/gc.ref.content.m.{i}={c}" for i, c in enumerate(children))
    return f"{Digest.of(b'index')}\t1kB\t1 minute\t{labels}\n"


def test_an_index_leads_to_the_configs_below_it() -> None:
    """An image of several platforms is called by its index."""
    one, two = Digest.of(b"one"), Digest.of(b"two")
    label = "containerd.io/gc.ref.content.config="
    rows = f"{one}\t1B\tx\t{label}{CONFIG}\n{two}\t1B\tx\t{label}{MANIFEST}\n"
    content = parse_content("DIGEST\n" + index_of(one, two) + rows)
    assert content.configs_under(Digest.of(b"index")) == {CONFIG, MANIFEST}


def test_what_is_there_of_an_image_is_all_that_its_labels_lead_to() -> None:
    """Blobs that the node does not keep are not among it, nor are other images' blobs."""
    manifest, kept, gone = (Digest.of(name) for name in (b"manifest", b"kept", b"gone"))
    label = "containerd.io/gc.ref.content"
    refs = f"{label}.config={CONFIG},{label}.l.0={kept},{label}.l.1={gone}"
    rows = (
        f"{manifest}\t1B\tx\t{refs}\n{CONFIG}\t1B\tx\t-\n{kept}\t1B\tx\t-\n{MANIFEST}\t1B\tx\t-\n"
    )
    content = parse_content("DIGEST\n" + index_of(manifest) + rows)
    assert content.there_under(Digest.of(b"index")) == {
        Digest.of(b"index"),
        manifest,
        CONFIG,
        kept,
    }


def test_an_index_that_lists_itself_leads_nowhere() -> None:
    """No label can make the search endless."""
    index = Digest.of(b"index")
    assert parse_content("DIGEST\n" + index_of(index, index)).configs_under(index) == frozenset()
    assert parse_content("DIGEST\n" + index_of(index, index)).there_under(index) == {index}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_import_uses_cris_snapshotter_and_one_platform(version: str) -> None:
    """kind #2543, and #3795: --all-platforms fails; --digests leaves junk (kind #4028)."""
    snapshotter = parse_snapshotter(text(version, "config")) or ""
    command = containerd.import_command(snapshotter, "linux/arm64", local=version == "2.1")
    assert command[:5] == ("ctr", "-n", "k8s.io", "images", "import")
    assert {"--snapshotter=overlayfs", "--platform=linux/arm64"} < set(command)
    assert ("--local" in command) is (version == "2.1")
    assert command[-1] == "-"
    assert not {"--all-platforms", "--digests", "--base-name"} & set(command)


PARSERS: list[Callable[[str], object]] = [
    parse_version,
    parse_snapshotter,
    parse_images,
    parse_content,
    parse_snapshots,
    parse_unseen,
]
recorded_texts = st.sampled_from(
    [text(v, w) for v in VERSIONS for w in ("version", "config", "images", "content", "snapshots")]
)


@given(recorded_texts, st.data())
def test_mangled_output_is_read_or_refused(said: str, data: st.DataObject) -> None:
    """Cut, and with junk in it: never anything but ImgloadError."""
    start = data.draw(st.integers(0, len(said)))
    end = data.draw(st.integers(start, min(len(said), start + 40)))
    mangled = said[:start] + data.draw(st.text(max_size=20)) + said[end:]
    for parse in PARSERS:
        try:
            parse(mangled)
        except ImgloadError as error:
            pytest.fail(f"these parsers answer with nothing, not with {error}")


@given(st.text() | st.text("sha256:0f \t\n", max_size=300))
def test_any_output_is_read(said: str) -> None:
    """Only digests that are digests come out of it."""
    assert all(isinstance(d, Digest) for d in parse_images(said).values())
    assert all(isinstance(d, Digest) for d in parse_snapshots(said))
    assert all(isinstance(d, Digest) for d in parse_content(said).blobs)
    major, minor = parse_version(said)
    assert major >= 0
    assert minor >= 0
