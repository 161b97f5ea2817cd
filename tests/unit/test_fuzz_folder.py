"""The fuzzer writes only to its own folder; unlike the fuzzer, this test is in every run."""

from pathlib import Path

from tests.fuzz.target import lay


def test_a_link_of_a_mutant_is_not_followed(tmp_path: Path) -> None:
    """The fuzzer may run as root, so it must not write outside its folder."""
    folder, outside = tmp_path / "layout", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "file").write_bytes(b"ours")
    lay(folder, "link", b"", str(outside / "file"))
    lay(folder, "blobs", b"", str(outside))
    for path in ("link", "blobs/file", "blobs/new", "../outside/file", f"{outside}/file"):
        lay(folder, path, b"theirs", "")
    assert (folder / "link").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == b"ours"
