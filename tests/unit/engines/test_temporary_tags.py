"""Notes of the names that pushes need: who may read them, and what the next run finds."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgload.core.state import private_folder, replace_file
from imgload.engines.cache import EngineCache
from imgload.engines.temporary_tags import TAG, note_temporary_name, stale_folders, stale_names

NAME = f"127.0.0.1:36039/imgload/{'0' * 32}:{'1' * 16}"
ENGINE, SAME = "unix:///run/docker.sock", "tcp://localhost:2375"
LONG_AGO = 90 * 24 * 3600.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the cache folder; files are made as most users' umask has them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    before = os.umask(0o022)
    yield tmp_path / "cache" / "imgload"
    os.umask(before)


def modes(folder: Path) -> set[str]:
    """Return who may do what with a folder and all in it."""
    return {stat.filemode(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize("there", [True, False])
def test_notes_are_readable_by_their_owner_only(cache: Path, *, there: bool) -> None:
    """The notes name the receiver's repository; folders of older versions are closed."""
    if there:
        (cache / "pushes").mkdir(parents=True)
        assert modes(cache) == {"drwxr-xr-x"}
    kept = note_temporary_name(ENGINE, NAME, "sha256:x")
    EngineCache.load().mark_unreachable(ENGINE)
    assert modes(cache) == {"drwx------", "-rw-------"}
    assert kept
    kept.remove()


def test_a_released_note_is_stale_at_every_address(cache: Path) -> None:
    """Only the same address proves that it is this engine; a living run's note is not stale."""
    kept = note_temporary_name(ENGINE, NAME, "sha256:x")
    assert kept
    assert list(stale_names([ENGINE])) == []
    kept.release()
    for engine, here in ((ENGINE, True), (SAME, False)):
        [left] = stale_names([engine])
        assert (left.name, left.image, left.here) == (NAME, "sha256:x", here)
        left.release()
    [left] = stale_names([ENGINE])
    left.remove()
    assert list(stale_names([ENGINE])) == []
    assert list((cache / "pushes").iterdir()) == []


def test_a_note_of_another_machine_is_not_here(cache: Path) -> None:
    """The home may be shared by NFS: the engine at that path is another one there."""
    kept = note_temporary_name(ENGINE, NAME, "")
    assert kept
    kept.release()
    [path] = (cache / "pushes").iterdir()
    path.write_text(json.dumps([ENGINE, NAME, "", "another machine"]))
    [left] = stale_names([ENGINE])
    assert not left.here


@pytest.mark.parametrize(
    ("name", "text", "age", "gone"),
    [
        ("a.new", "", 300.0, True),
        ("a.new", "", 0.0, False),
        ("a.json", "no note", 0.0, True),
        ("a.json", json.dumps([ENGINE, "app:v1", "", ""]), 0.0, True),
        ("a.json", json.dumps([SAME, NAME, "", ""]), LONG_AGO, True),
        ("a.json", json.dumps([SAME, NAME, "", ""]), 300.0, False),
        ("a.txt", "somebody else's", LONG_AGO, False),
    ],
)
def test_invalid_and_expired_notes_are_removed(
    cache: Path, name: str, text: str, age: float, *, gone: bool
) -> None:
    """A run that was killed while it wrote one, and engines that are not met again."""
    (cache / "pushes").mkdir(parents=True)
    path = cache / "pushes" / name
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    for left in stale_names([ENGINE]):
        left.release()
    assert path.exists() is not gone


def test_a_note_of_an_older_version_is_readable(cache: Path) -> None:
    """It has neither image nor machine."""
    (cache / "pushes").mkdir(parents=True)
    (cache / "pushes" / "a.json").write_text(json.dumps([ENGINE, NAME]))
    [left] = stale_names([ENGINE])
    assert (left.name, left.image, left.here) == (NAME, "", True)


def test_notes_fall_back_to_the_temporary_folder(cache: Path) -> None:
    """The next run looks there as well; nothing is left behind it."""
    cache.parent.mkdir()
    cache.write_text("in the way")
    kept = note_temporary_name(ENGINE, NAME, "")
    assert kept
    temp = Path(os.environ["TMPDIR"])
    [folder] = temp.iterdir()
    assert modes(folder) == {"drwx------", "-rw-------"}
    kept.release()
    [left] = stale_names([ENGINE])
    left.remove()
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize("made_by", ["a link", "open to all"])
def test_a_shared_folder_for_notes_is_refused(cache: Path, tmp_path: Path, made_by: str) -> None:
    """The temporary folder is everybody's."""
    cache.parent.mkdir()
    cache.write_text("in the way")
    folder = Path(os.environ["TMPDIR"]) / f"imgload-{os.geteuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if made_by == "a link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
    assert note_temporary_name(ENGINE, NAME, "") is None
    assert modes(elsewhere) == {"drwxr-xr-x"}


def test_stale_yields_the_engines_own_notes_first(cache: Path) -> None:
    """Clusters are deleted, and the notes of their nodes stay for a month; some of them are tried.

    So do the notes of engines at other addresses, which may be this one.
    """
    (cache / "pushes").mkdir(parents=True)
    folder = f"/var/lib/imgload-{'0' * 16}"
    for number in range(60):
        other, name = (f"node{number}", folder) if number % 2 else (f"{SAME}{number}", NAME)
        text = json.dumps([other, name, "", os.uname().nodename])
        (cache / "pushes" / f"{number}.json").write_text(text)
    for engine, name in ((ENGINE, NAME), ("node", folder)):
        kept = note_temporary_name(engine, name)
        assert kept
        kept.release()
    tags = [left.engine for left in stale_names([ENGINE], TAG)]
    assert tags[0] == ENGINE
    assert len(tags) == 21
    assert [(left.engine, left.name) for left in stale_folders(["node"])] == [("node", folder)]


def test_replace_file_removes_abandoned_partial_files(tmp_path: Path) -> None:
    """By the next one that writes the file; not one that may still be written, nor another's."""
    path = tmp_path / "engines.json"
    names = (".engines.json.imgload-old", ".engines.json.imgload-new", ".engines.json.original")
    old, new, other = (tmp_path / name for name in names)
    for part in (old, new, other):
        part.touch()
    for part in (old, other):
        os.utime(part, (time.time() - 300,) * 2)
    replace_file(path, "text")
    assert set(tmp_path.iterdir()) >= {path, new, other}
    assert not old.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_private_folder_refuses_another_users_folder(tmp_path: Path) -> None:
    """`XDG_CACHE_HOME` may be shared: its owner could read the notes, and change what is there."""
    other = tmp_path / "imgload"
    other.mkdir(mode=0o700)
    os.chown(other, 12345, -1)
    with pytest.raises(PermissionError):
        private_folder(other)
