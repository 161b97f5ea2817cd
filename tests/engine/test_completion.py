"""Completion in a real bash, with the images of real engines."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.engine.conftest import Images, unique
from tests.lab import Lab

_PATIENCE = 20.0
_CALL = """
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_imgload_completion imgload
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def imgload_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as a shell calls it."""
    program = tmp_path / "bin" / "imgload"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m imgload "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PS1", "$ ")
    monkeypatch.setenv("TERM", "dumb")


def run(*command: str) -> str:
    """Return a command's stdout, and assert that stderr is empty."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@cache
def function() -> str:
    """Return the completion script."""
    return run("imgload", "completion", "bash")


def offered(*typed: str) -> list[str]:
    """Return the completions for words as bash splits them."""
    script = 'eval "$(imgload completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))'
    script += '; _imgload_completion imgload; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "--norc", "-c", script, "bash", "imgload", *typed]
    for _ in range(20):  # try again: a busy machine may need more than a second
        if words := run(*command).split():
            return words
    return []


@pytest.mark.usefixtures("imgload_on_path")
def test_completion_offers_images_clusters_and_nodes(lab: Lab, images: Images) -> None:
    """Images of both engines by their short names; nodes of the selected cluster."""
    lab.up("lab-d3", "lab-d21")
    name, tag = unique("completed").replace(":t", ":v").split(":")
    for engine in (lab.docker, lab.podman):
        images.build(engine, f"{name}:{engine.name}-{tag}")
    both = [f"docker-{tag}", f"podman-{tag}"]
    assert offered("load", "comple") == [f"{name}:{suffix}" for suffix in both]
    assert offered("load", "--from", "podman", "comple") == [f"{name}:podman-{tag}"]
    assert offered("verify", name, ":") == both
    assert offered("doctor", name, ":") == both
    assert offered("prune", "comple") == [name]
    assert offered("watch", name, ":", "pod") == both[1:]
    assert {"lab-d3", "lab-d21"} <= set(offered("load", "--cluster", "=", "lab-d"))
    nodes = [node.name for node in lab.cluster("lab-d3").nodes]
    assert offered("load", "-c", "lab-d3", "-n", "lab-") == nodes


@contextmanager
def bash() -> Iterator[int]:
    """Yield the terminal of an interactive bash."""
    child, terminal = pty.fork()
    if not child:
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    try:
        yield terminal
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def shown(terminal: int, wanted: str) -> bool:
    """Return whether the terminal shows a text in time."""
    screen, deadline = b"", time.monotonic() + _PATIENCE
    while wanted.encode() not in screen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            screen += os.read(terminal, 4096)
    return wanted.encode() in screen


@pytest.mark.usefixtures("imgload_on_path")
def test_a_tab_completes_an_image_with_its_tag(lab: Lab, images: Images) -> None:
    """Also after the colon, at which bash splits words."""
    tag = unique("tabbed")
    images.build(lab.docker, tag)
    with bash() as terminal:
        os.write(terminal, b'eval "$(imgload completion bash)"; echo re""ady\n')
        assert shown(terminal, "ready")
        os.write(terminal, f"imgload load {tag[:-4]}\t\t\t".encode())
        assert shown(terminal, tag)
