"""The script that lists files, run on this machine, and its output."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from imgload.clusters.nodes.files import LIST, parse_files
from imgload.core.errors import NodeUnusable

CTR = """#!/bin/sh
for folder; do :; done
case "$*" in *mount*--snapshotter*) cp -a "$TREE/." "$folder" ;; esac
"""
"""Copies a folder instead of mounting an image."""
TOOLS = ("sh", "cat", "cp", "rm", "mkdir", "find", "xargs", "grep", "stat", "umount", "sha256sum")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with names and targets that a line-based parser would confuse."""
    (tree := tmp_path / "tree").mkdir()
    (tree / "plain").write_text("content")
    (tree / "two\nlines \\").write_text("")
    (tree / "link\n' -> 'x").symlink_to("tar\nget 81a4 0 0")
    (tree / "folder").mkdir()
    os.link(tree / "plain", tree / "folder" / "hard")
    Path(os.fsdecode(bytes(tree) + b"/\xff")).write_text("x")
    return tree


class Script:
    """The script, with a PATH of its own."""

    def __init__(self, tmp_path: Path, tree: Path) -> None:
        self.folder, self.programs = tmp_path / "mounted", tmp_path / "bin"
        self.programs.mkdir()
        for tool in TOOLS:
            (self.programs / tool).symlink_to(shutil.which(tool) or tool)
        (ctr := self.programs / "ctr").write_text(CTR)
        ctr.chmod(0o755)
        self.environment = {"PATH": str(self.programs), "TREE": str(tree)}

    def start(self, hashes: str = "", watched: str = "") -> subprocess.Popen[bytes]:
        words = [str(self.folder), "app", "overlayfs", "linux/amd64", hashes, watched, "ctr"]
        return subprocess.Popen(
            ["/bin/sh", "-c", LIST, "imgload", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )


@pytest.fixture
def script(tmp_path: Path, tree: Path) -> Script:
    return Script(tmp_path, tree)


@pytest.mark.parametrize("hashes", ["", "sha256sum"])
def test_files_are_listed(script: Script, tree: Path, hashes: str) -> None:
    """The folder is removed, although the input stays open."""
    process = script.start(hashes, "watched")
    assert process.stdout
    listed = parse_files(process.stdout.read(), hashes=bool(hashes))
    assert process.wait() == 0
    process.communicate()
    files = {path: (file, inode) for path, file, inode in listed.files}
    assert files.keys() == {
        *(b"/plain", b"/two\nlines \\", b"/link\n' -> 'x", b"/folder", b"/folder/hard", b"/\xff")
    }
    assert files[b"/link\n' -> 'x"][0].target == b"tar\nget 81a4 0 0"
    assert files[b"/plain"][1] == files[b"/folder/hard"][1]
    assert files[b"/plain"][0].mode == (tree / "plain").stat().st_mode
    assert len(files[b"/two\nlines \\"][0].content) == (64 if hashes else 0)
    assert not script.folder.exists()


def test_the_end_of_the_input_ends_all_processes(script: Script) -> None:
    (script.programs / "sha256sum").unlink()
    (slow := script.programs / "sha256sum").write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    (script.programs / "sleep").symlink_to(shutil.which("sleep") or "sleep")
    process = script.start("sha256sum", "watched")
    assert process.stdout
    assert process.stdout.read(1)
    process.communicate(timeout=30)
    assert not script.folder.exists()


def test_a_missing_tool_is_named(script: Script) -> None:
    (script.programs / "stat").unlink()
    process = script.start()
    _, errors = process.communicate()
    assert process.returncode == 127
    assert b"no stat" in errors
    assert not script.folder.exists()


def test_a_signal_ends_the_script(script: Script) -> None:
    process = script.start("", "watched")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert not script.folder.exists()


MAPPED = b"         0          0 4294967295\n"
BUSYBOX = (
    MAPPED
    + b"\0.\0./l\nk\0\0"
    + b"41ed 60 0 0 0 0 1 .\n"
    + b"a1ff 3 5 6 0 0 3 './l\nk' -> 'a\nb'\n"
    + b"complete"
)


def test_busyboxs_output_is_parsed() -> None:
    listed = parse_files(BUSYBOX, hashes=False)
    [(path, file, inode)] = listed.files
    assert (path, file.target, file.owner, inode) == (b"/l\nk", b"a\nb", (5, 6), 3)
    assert listed.has_devices


def test_a_user_namespace_has_no_devices() -> None:
    mapped = BUSYBOX.replace(MAPPED, b"  0   1000   1\n  1   100000  65536\n")
    assert not parse_files(mapped, hashes=False).has_devices


@pytest.mark.parametrize(
    "output",
    [
        b"",
        MAPPED,
        BUSYBOX[:-1],
        BUSYBOX.replace(b"' -> '", b"' => '"),
        BUSYBOX.replace(b"a1ff 3", b"a1ff 30"),
        BUSYBOX.replace(b"41ed", b"4xed"),
    ],
)
def test_unexpected_output_is_an_error(output: bytes) -> None:
    with pytest.raises(NodeUnusable):
        parse_files(output, hashes=False)


def test_missing_hashes_are_an_error() -> None:
    output = MAPPED + b"\0.\0./f\0\x0041ed 60 0 0 0 0 1 .\n81a4 0 0 0 0 0 2 ./f\ncomplete"
    with pytest.raises(NodeUnusable):
        parse_files(output, hashes=True)
