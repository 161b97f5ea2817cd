"""The README and the pages in docs/ show the output that their commands and programs have."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.engine.conftest import cases, forget, records
from tests.lab import Lab, Node
from tests.lab.engine import Engine
from tests.snippets import PAGES, ROOT, snippets

_SHORT = ("README.md", "docs/archives.md")
"""The pages of every run."""
_MEBIBYTE = 1 << 20
# `build NAME [BYTES] [ENGINE]` and `load NAME` are for the comments in the pages. After
# MEANWHILE=COMMANDS, the next imgload runs beside these commands until Ctrl-C; `await TEXT` waits
# for its output.
_START = """\
exec 2>&1
docker() { command docker "$@" 2>>"$HOME/errors"; }  # it warns of the builder
build() {
    mkdir -p "$HOME/$1"
    head -c "${2-16}" /dev/urandom >"$HOME/$1/layer"
    printf 'FROM scratch\\nCOPY layer /\\n' >"$HOME/$1/Dockerfile"
    "${3-docker}" build -q -t "$1" "$HOME/$1"
}
imgload() {
    [ "$MEANWHILE" ] || { command imgload "$@"; return; }
    set -m  # without jobs of its own, a shell starts them with Ctrl-C ignored
    command imgload "$@" >>"$HOME/output" 2>&1 &
    set +m
    eval "$MEANWHILE" >/dev/null
    printf '^C' >>"$HOME/output"
    kill -INT $! && wait $!
    cat "$HOME/output"
    MEANWHILE=
}
await() { until grep -q "$1" "$HOME/output"; do sleep 0.1; done; }
load() { build "$@" && imgload load -q "$1" --cluster kind; }
"""
_STEP = "(exit $status)\n{}\nstatus=$?\nprintf '\\0%s\\0' $status\n"
"""A command sees the exit status of the last one, and is followed by its own."""
_VARYING = {
    "number": r"\d+(?:\.\d+)? (?:B|[KMG]iB|s)\b",
    "clock": r"\d\d:\d\d:\d\d",
    "version": r"\d+(?:\.\d+)+(?:\+\w+)?",
    "port": r":\d{5}\b",
    "rest": r"…",
}
_ID = r"\b[0-9a-f]{12}(?:[0-9a-f]{52})?\b"
_PARTS = re.compile("|".join([*(f"(?P<{k}>{v})" for k, v in _VARYING.items()), f"(?P<id>{_ID})"]))


_TITLE = re.compile(r"\S+/\S+ [0-9a-f]{12}$", re.MULTILINE)
"""The first line about an image in a report."""


@attrs.frozen
class Session:
    """The state of a page: `ids` are image IDs on the page and those of this run."""

    ids: dict[str, str] = attrs.field(factory=dict)

    def shows(self, expected: str, output: str) -> bool:
        """Compare an output with that on the page, except for times, sizes and new IDs."""
        pattern, end, groups = "", 0, dict[str, str]()
        for part in _PARTS.finditer(expected):
            pattern += re.escape(expected[end : part.start()])
            pattern += self._pattern(part, groups)
            end = part.end()
        match = re.fullmatch(pattern + re.escape(expected[end:]), output)
        if match:
            self.ids.update((shown, match[name]) for shown, name in groups.items())
        return match is not None

    def _pattern(self, part: re.Match[str], groups: dict[str, str]) -> str:
        kind, text = str(part.lastgroup), part[0]
        if kind == "rest":
            alone = part.string[: part.start()].rpartition("\n")[2] == ""
            return r"(?s:.*?)" if alone else r".*?"
        if kind != "id":
            return _VARYING[kind]
        shown = text[:12]
        if shown in self.ids:
            name = self.ids[shown]
        elif shown in groups:
            name = f"(?P={groups[shown]})"
        else:
            groups[shown] = f"id{len(groups)}"
            name = f"(?P<{groups[shown]}>[0-9a-f]{{12}})"
        return name + (r"[0-9a-f]{52}" if len(text) > len(shown) else "")


def ordered(text: str) -> str:
    """Omit spaces at the end of lines, and sort parts whose order varies.

    Nodes start in parallel, and Docker saves several images in any order.
    """
    parts: list[str] = []
    for line in (line.rstrip() for line in text.strip("\n").split("\n")):
        if line.startswith("  ") and parts and _TITLE.match(parts[-1]):
            parts[-1] += f"\n{line}"
        else:
            parts.append(line)
    groups = itertools.groupby(
        parts, lambda part: "image" if _TITLE.match(part) else part.partition(" ")[0]
    )
    return "\n".join(
        part
        for kind, group in groups
        for part in (sorted(group) if kind in {"image", "sending"} else group)
    )


@attrs.frozen
class Workspace:
    """Engines and clusters like those on the pages."""

    docker: Engine
    podman: Engine
    nodes: list[Node]

    def environ(self, home: Path) -> dict[str, str]:
        """Return the variables of a user at work, with the context of one cluster."""
        (home / "kubeconfig").write_text("{kind: Config, current-context: kind-kind}")
        podman = self.podman.environ()["PATH"].partition(":")[0]
        programs = [str(Path(sys.executable).parent), podman]
        environ = {k: v for k, v in os.environ.items() if k != "CONTAINER_HOST"}
        environ |= self.docker.environ()
        environ |= {"HOME": str(home), "KUBECONFIG": str(home / "kubeconfig")}
        environ |= {"PODMAN": self.podman.url, "BUILDAH_ISOLATION": "chroot"}
        environ |= {"DOCKER_BUILDKIT": "0", "PATH": ":".join([*programs, environ["PATH"]])}
        return environ

    def as_on_pages(self, output: str, home: Path) -> str:
        """Replace the lab's sockets and the home folder by the usual ones."""
        names = {
            self.docker.url: "unix:///var/run/docker.sock",
            self.podman.url: "unix:///run/podman/podman.sock",
            str(home): "/home/me",
        }
        for own, usual in names.items():
            output = output.replace(own, usual)
        return output


@pytest.fixture(scope="module")
def workspace(lab: Lab) -> Iterator[Workspace]:
    """Two clusters in an engine that runs no others."""
    docker = lab.engine("docker28-graphdriver")
    made = [
        lab.make_cluster(name=name, engine=docker.name, crictl=True, roles=roles)
        for name, roles in {
            "kind": ("control-plane", "worker"),
            "other": ("control-plane",),
        }.items()
    ]
    yield Workspace(docker, lab.podman, [node for cluster in made for node in cluster.nodes])
    for cluster in made:
        cluster.remove()


@pytest.fixture
def folder(workspace: Workspace, tmp_path: Path) -> Iterator[Path]:
    """The folder of an application, whose images are removed at the end."""
    home = tmp_path / "me"
    folder = home / "app"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY base /\nCOPY app.py /\n")
    (folder / "base").write_bytes(secrets.token_bytes(17 * _MEBIBYTE))
    (folder / "app.py").write_text(f"print({secrets.randbits(64)})\n")
    for node in workspace.nodes:
        forget(node, *records(node))
    engines = (workspace.docker, workspace.podman)
    before = [image_ids(engine) for engine in engines]
    yield folder
    for engine, others in zip(engines, before, strict=True):
        if added := image_ids(engine) - others:
            engine.remove_image(*added)


def image_ids(engine: Engine) -> set[str]:
    return set(engine.cli("images", "--quiet", "--no-trunc").split())


EXECUTED = {
    str(page.relative_to(ROOT)): page
    for page in PAGES
    if any(snippet.executed for snippet in snippets(page))
}


@pytest.mark.parametrize("page", cases(EXECUTED, _SHORT))
def test_a_page_shows_the_output_of_its_commands(
    page: Path, workspace: Workspace, folder: Path
) -> None:
    """Commands without output on the page only have to succeed."""
    steps = [step for s in snippets(page) if s.executed for step in s.steps()]
    script = folder.parent / "script"
    script.write_text(_START + "".join(_STEP.format(command) for command, _ in steps))
    done = subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env=workspace.environ(folder.parent),
        input="q\n",
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    outputs = workspace.as_on_pages(done.stdout, folder.parent).split("\0")
    session = Session()
    shown: list[str] = []
    actual: list[str] = []
    for (command, expected), output, status in zip(
        steps, outputs[::2], outputs[1::2], strict=False
    ):
        if expected is None:
            expected, output = "", "" if status == "0" else f"{output}\nexit status {status}"  # noqa: PLW2901
        expected, output = ordered(expected), ordered(output)  # noqa: PLW2901
        shown += [f"$ {command}", *expected.splitlines()]
        actual += [f"$ {command}"]
        actual += (expected if session.shows(expected, output) else output).splitlines()
    difference = "\n".join(difflib.unified_diff(shown, actual, str(page), "output", lineterm=""))
    assert not difference, f"\n{difference}"
    assert len(outputs) // 2 == len(steps)
