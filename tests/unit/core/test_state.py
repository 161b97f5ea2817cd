"""Temporary folders, and what killed runs leave of them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from imgload.core.state import TemporaryFolder, remove_stale_folders

KILLED = """
import os, signal
from imgload.core.state import TemporaryFolder
folder = TemporaryFolder.make()
(folder.path / "log").write_text("unfinished")
print(folder.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary folder of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed() -> Path:
    """Return the folder of a run that was killed."""
    run = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, check=False)
    assert run.returncode == -signal.SIGKILL
    return Path(os.fsdecode(run.stdout.strip()))


def fill(folder: Path) -> None:
    """Add an OCI layout's folders, and a link that leads out."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "blobs" / "sha256" / "0").write_text("blob")
    (folder / "blobs" / "out").symlink_to(folder.parent)


@pytest.mark.usefixtures("shared")
def test_a_temporary_folder_is_for_its_user_only() -> None:
    """Others in the shared temporary folder could read the socket's name, or connect."""
    folder = TemporaryFolder.make()
    (folder.path / "log").write_text("text")
    fill(folder.path)
    assert stat.S_IMODE(folder.path.stat().st_mode) == stat.S_IRWXU
    folder.remove()
    assert not folder.path.exists()


@pytest.mark.usefixtures("shared")
def test_remove_stale_removes_the_folder_of_a_killed_run_only() -> None:
    """The folder of a run that goes on stays."""
    living, left = TemporaryFolder.make(), killed()
    fill(left)
    remove_stale_folders()
    assert not left.exists()
    assert living.path.exists()
    living.remove()


def test_remove_stale_follows_no_link(shared: Path) -> None:
    """Anybody may put one there."""
    target = shared / "precious"
    target.mkdir(mode=0o700)
    (target / "file").write_text("kept")
    (shared / "imgload-run-link").symlink_to(target)
    remove_stale_folders()
    assert (target / "file").read_text() == "kept"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_remove_stale_leaves_folders_that_others_may_enter(shared: Path, mode: int) -> None:
    """None of ours is so."""
    other = shared / "imgload-run-other"
    other.mkdir()
    other.chmod(mode)
    remove_stale_folders()
    assert other.exists()
