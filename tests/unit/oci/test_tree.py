"""The file tree of layers, and how a node's files differ from it."""

from __future__ import annotations

import random
import stat
import tarfile
from contextlib import suppress

import pytest

from imgload.core.errors import ArchiveInvalid
from imgload.oci import tree as tree_module
from imgload.oci.tree import File, Listed, Tree, differences, read_layer, shown
from tests.unit.layers import Layer, odd_layers, sparse_layer

FOLDER, FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644


def tree_of(*layers: bytes, hashes: bool = False) -> Tree:
    tree = Tree()
    for layer in layers:
        tree.apply(read_layer([layer], hashes=hashes))
    return tree


def paths(*layers: Layer) -> set[str]:
    return {path.decode() for path, _ in tree_of(*(layer.tar for layer in layers)).files()}


LOWER = Layer().add("a/lower", b"1").add("a/b/lower", b"2").add("file", b"3").tar


def over_lower(upper: Layer) -> set[str]:
    files = tree_of(LOWER, upper.tar).files()
    return {path.decode() for path, file in files if file.kind != stat.S_IFDIR}


@pytest.mark.parametrize(
    ("upper", "files"),
    [
        (Layer().add(".wh.file"), {"/a/lower", "/a/b/lower"}),
        (Layer().add(".wh.a"), {"/file"}),
        (Layer().add(".wh.a").add("a/own"), {"/file", "/a/own"}),
        (Layer().add("a/own").add(".wh.a"), {"/file", "/a/own"}),
        (Layer().add("a/.wh..wh..opq").add("a/b/own"), {"/file", "/a/b/own"}),
        (Layer().add("a/b/own").add("a/.wh..wh..opq"), {"/file", "/a/b/own"}),
        (Layer().add("a/b/own").add("a/b/.wh.lower"), {"/file", "/a/lower", "/a/b/own"}),
        (Layer().add("a"), {"/file", "/a"}),
        (Layer().add("file/own"), {"/a/lower", "/a/b/lower", "/file/own"}),
        (Layer().folder("a"), {"/file", "/a/lower", "/a/b/lower"}),
        (Layer().link("a", "b").add("a/own"), {"/file", "/a", "/b/own"}),
        (Layer().link("x", "/a/../a/b").add("x/own").add(".wh.file"),
         {"/a/lower", "/a/b/lower", "/a/b/own", "/x"}),
        (Layer().add("../../up").add("./a/./b//c"),
         {"/file", "/a/lower", "/a/b/lower", "/up", "/a/b/c"}),
        (Layer().add(".wh.absent").folder(".").folder("/"), {"/file", "/a/lower", "/a/b/lower"}),
    ],
)  # fmt: skip
def test_a_layer_changes_the_files_of_lower_layers(upper: Layer, files: set[str]) -> None:
    assert over_lower(upper) == files


def test_a_link_of_a_lower_layer_is_replaced_by_a_folder() -> None:
    """As overlayfs shows it: containerd unpacks each layer into its own folder."""
    lower, upper = Layer().folder("usr/lib").link("lib", "usr/lib"), Layer().add("lib/own")
    assert paths(lower, upper) == {"/usr", "/usr/lib", "/lib", "/lib/own"}


def test_hard_links_are_one_file() -> None:
    """The last header sets owner and mode, as in containerd."""
    layer = Layer().add("a", b"12", mode=0o600)
    layer.add("b", kind=tarfile.LNKTYPE, target="a", mode=0o640, owner=(1, 2))
    files = dict(tree_of(layer.tar).files())
    assert files[b"/a"] is files[b"/b"]
    assert (files[b"/a"].mode, files[b"/a"].owner) == (stat.S_IFREG | 0o640, (1, 2))


def test_all_kinds_of_files_are_read() -> None:
    files = dict(tree_of(*odd_layers("x"), sparse_layer(), hashes=True).files())
    assert files[b"/holes"].size == (3 << 20) + 3
    assert files[b"/holes"].content == b""
    assert files[b"/etc/owned"].owner == (1000, 70000)
    assert files[b"/block"].device == (7, 300)
    assert files[b"/tmp"].mode == stat.S_IFDIR | 0o1770
    assert files[b"/split\nline"].target == b"tar\nget' -> '"
    assert len(files[b"/again"].content) == 64
    assert b"/b\xff\xfe" in files
    assert not files.keys() & {b"/deleted", b"/linked", b"/opaque/lower"}


@pytest.mark.parametrize(
    ("layer", "count"), [(b"", 0), (bytes(512), 0), (bytes(1024), 0), (LOWER[:1024], 1)]
)
def test_the_end_marker_of_a_layer_may_be_absent(layer: bytes, count: int) -> None:
    assert len(read_layer([layer])) == count


@pytest.mark.parametrize(
    "layer",
    [
        LOWER[:700],
        b"x" * 512,
        Layer().add("x", kind=b"Z").tar,
        Layer().link("x", "absent", hard=True).tar,
        Layer().folder("x").link("y", "x", hard=True).tar,
        Layer().link("x", "x").add("x/y").tar,
        Layer().add("x\0y" + "z" * 200).tar,
        Layer().add("/".join(["x" * 200] * 21)).tar,
    ],
)
def test_a_layer_that_cannot_be_unpacked_is_invalid(layer: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        tree_of(layer)


def test_damaged_layers_are_invalid_or_read() -> None:
    """No other error is raised, whichever bytes of headers are changed."""
    layers = [bytearray(layer) for layer in (*odd_layers("x"), sparse_layer())]
    rng = random.Random(1)
    for layer in layers * 40:
        copy = bytearray(layer)
        start = rng.randrange(0, len(copy), 512)
        for _ in range(rng.randrange(1, 4)):
            copy[start + rng.randrange(512)] = rng.choice((0, 0x20, 0x31, 0x37, 0xFF))
        copy[start + 148 : start + 156] = b"%06o\0 " % checksum(copy[start : start + 512])
        with suppress(ArchiveInvalid):
            list(tree_of(bytes(copy), hashes=True).files())


def checksum(block: bytearray) -> int:
    return sum(block) - sum(block[148:156]) + 8 * 0x20


def test_the_number_of_files_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that of folders without an entry."""
    monkeypatch.setattr(tree_module, "MAX_FILES", 5)
    with pytest.raises(ArchiveInvalid, match="more than 5"):
        tree_of(Layer().add("1/2/3/4/5/6").tar)
    layer = Layer()
    for number in range(6):
        layer.folder(f"{number}")
    with pytest.raises(ArchiveInvalid, match="more than 5"):
        read_layer([layer.tar])


def test_deep_folders_take_no_recursion() -> None:
    deep = "a/" * 2000
    tree = tree_of(Layer().add(f"{deep}f").tar, Layer().add("a/own").add("a/.wh..wh..opq").tar)
    assert {path for path, _ in tree.files()} == {b"/a", b"/a/own"}
    assert len(list(tree_of(Layer().add(f"{deep}f").tar).files())) == 2001


def listed(*files: tuple[str, File, int]) -> list[Listed]:
    return [Listed(path.encode(), file, inode) for path, file, inode in files]


def test_equal_files_do_not_differ() -> None:
    """Sizes of folders, modes of links, and hashes of one side are not compared."""
    layer = Layer().folder("d").link("l", "t").add("f", b"1").link("g", "f", hard=True)
    node = listed(
        ("/d", File(FOLDER, size=4096), 1),
        ("/l", File(stat.S_IFLNK | 0o755, target=b"t"), 2),
        ("/f", File(FILE, size=1, content=b"x"), 3),
        ("/g", File(FILE, size=1), 3),
    )
    assert list(differences(tree_of(layer.tar), node)) == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (File(FILE, size=2), "has 2 bytes, not 1"),
        (File(FILE, size=1, content=b"x"), "has other content"),
        (File(stat.S_IFREG | 0o4755, size=1), "has mode 4755, not 0644"),
        (File(FILE, (1, 2), 1), "belongs to 1:2, not 0:0"),
        (File(FOLDER), "is a folder on the node, and a file in the image"),
        (File(stat.S_IFREG | 0o600, size=2), "has 2 bytes, not 1; has mode 0600, not 0644"),
    ],
)
def test_the_difference_of_a_file_is_named(file: File, reason: str) -> None:
    tree = tree_of(Layer().add("f", b"1").tar, hashes=True)
    assert list(differences(tree, listed(("/f", file, 1)))) == [f"/f: {reason}"]


def test_other_links_and_devices_differ() -> None:
    layer = Layer().link("l", "t").add("c", kind=tarfile.CHRTYPE, device=(1, 3))
    layer.add("f").link("g", "f", hard=True)
    node = listed(
        ("/l", File(stat.S_IFLNK, target=b"\n"), 1),
        ("/c", File(stat.S_IFCHR | 0o644, device=(1, 5)), 2),
        ("/f", File(FILE), 3),
        ("/g", File(FILE), 4),
    )
    found = list(differences(tree_of(layer.tar), node))
    assert [text.partition(":")[0] for text in found] == ["/l", "/c", "/g"]
    assert found[0] == r"/l: leads to \n, not t"


def test_missing_and_additional_files_differ() -> None:
    """A node in a user namespace has no device files."""
    tree = tree_of(Layer().add("f").add("c", kind=tarfile.CHRTYPE, device=(1, 3)).tar)
    node = listed(("/deleted", File(FILE), 1))
    found = [text.partition(":")[0] for text in differences(tree, node)]
    assert found == ["/deleted", "/f", "/c"]
    assert len(list(differences(tree, node, devices=False))) == 2


def test_paths_are_shown_escaped_and_short() -> None:
    assert shown(b"/a\n\xff\x1b") == r"/a\n\xff\x1b"
    assert len(shown(b"x" * 5000)) < 300
