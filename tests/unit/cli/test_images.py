"""Options and output of ``imgload images`` and ``imgload prune``."""

import errno
import inspect
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

import imgload
from imgload.cli.images import images, prune, show_listing, show_pruned
from imgload.cli.output import show_json
from imgload.core.errors import NodeError
from imgload.engines.cache import EngineCache
from imgload.oci.digest import Digest
from imgload.tools.inventory.base import NodeImage
from imgload.tools.inventory.images import ListedImage, Listing
from imgload.tools.inventory.prune import Kept, NodePruned, PruneReport
from tests.unit.cli.conftest import Run
from tests.unit.cli.stub import Docker
from tests.unit.cli.test_usage import examples, invoke

DEV = "docker.io/library/app:dev"
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
MIB = 1 << 20


def there(image_id: Digest, *names: str, in_use: bool = False, ours: bool = True) -> NodeImage:
    return NodeImage(
        image_id,
        names,
        loaded_as=(DEV,) if ours else (),
        since=time.time() - 7300,
        size=98 * MIB,
        own_size=8 << 10,
        in_use=in_use,
    )


LISTING = Listing(
    images=(
        ListedImage(DEV, NEW, {"kind-control-plane": there(NEW, DEV, in_use=True)}, drift=True),
        ListedImage(DEV, OLD, {"kind-worker": there(OLD, DEV)}, drift=True),
        ListedImage("a b\x1b[31m\n:1", OLD, {"kind-worker": there(OLD, ours=False)}),
        ListedImage(None, OLD, {"kind-control-plane": there(OLD)}),
    ),
    sizes={"kind-control-plane": 106 * MIB, "kind-worker": 98 * MIB},
    errors={"kind-worker2": NodeError("kind-worker2 is paused", hint="docker unpause it")},
)


@pytest.mark.parametrize("command", [images, prune], ids=lambda command: command.name)
def test_each_example_in_the_help_can_be_parsed(command: click.Command) -> None:
    """No example shows a renamed option."""
    shown = examples(invoke(str(command.name), "--help").output)
    assert len(shown) > 4
    for example in shown:
        words = shlex.split(example.partition(" | ")[0])
        assert words[:2] == ["imgload", command.name]
        with command.make_context(command.name, words[2:]):
            pass


@pytest.mark.parametrize(
    ("command", "call", "own"),
    [
        (images, imgload.images, {"output", "verbose"}),
        (prune, imgload.prune, {"output", "yes", "cache", "verbose"}),
    ],
    ids=["images", "prune"],
)
def test_the_options_are_the_parameters_of_the_library(
    command: click.Command, call: Callable[..., object], own: set[str]
) -> None:
    """The command has no logic of its own."""
    taken = {parameter.name for parameter in command.params}
    assert taken == set(inspect.signature(call).parameters) | own


def test_images_in_a_pipe_prints_a_line_for_each_image_and_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Columns have no spaces, for awk; control characters are made visible."""
    show_listing(LISTING)
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    assert lines[0] == ["IMAGE", "NODE", "ID", "SIZE", "OWN", "AGE", "STATE"]
    states = ["in-use,loaded,drift", "unused,loaded,drift"]
    nodes = ["kind-control-plane", "kind-worker"]
    for line, node, image_id, state in zip(lines[1:3], nodes, [NEW, OLD], states, strict=True):
        assert line == [DEV, node, image_id.short, "98MiB", "8KiB", "2h", state]
    assert lines[3][:2] == ["a", "b\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}:1"]
    assert lines[4][0] == f"<none:was={DEV}>"
    assert "kind-worker: 98 MiB in images" in captured.err
    assert "✗ kind-worker2 is paused\n      try: docker unpause it" in captured.err


def test_images_on_a_terminal_prints_a_column_for_each_node(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A legend explains the marks."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    show_listing(LISTING)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    header, _, first, second, *_ = (line for line in shown.splitlines() if line.strip())
    assert header.split() == ["IMAGE", "ID", "SIZE", "OWN", "AGE", "control-plane", "worker"]
    assert first.split() == ["app:dev", NEW.short, "≠", "98", "MiB", "8", "KiB", "2h", "●", "·"]
    assert second.split() == ["app:dev", OLD.short, "≠", "98", "MiB", "8", "KiB", "2h", "·", "✓"]
    assert "≠ drift" in shown
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize("columns", [76, 80, 120])
def test_long_names_are_shortened_on_a_terminal_but_ids_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """The nodes share a column then. In a pipe, names are complete."""
    name = f"registry.example/{'team/' * 20}app:{OLD.hex}"
    nodes = dict.fromkeys(["kind-control-plane", "kind-worker", "kind-worker2"], there(OLD, name))
    listing = Listing((ListedImage(name, OLD, nodes, drift=False),), dict.fromkeys(nodes, 1), {})
    pruned = PruneReport((NodePruned("kind-worker", (there(OLD, name),)),), dry_run=True)
    show_listing(listing)
    show_pruned(pruned)
    assert capsys.readouterr().out.count(f"{name} ") == 4
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    show_listing(listing)
    show_pruned(pruned)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= columns
    [listed] = [line for line in lines if "✓✓✓" in line]
    assert f"{OLD.short}… " in listed
    assert f" {OLD.short} " in listed
    assert "NODES: control-plane, worker, worker2" in lines
    assert any(f"{OLD.short}… {OLD.short} (98 MiB, 2h old)" in line for line in lines)


def report(*, dry_run: bool) -> PruneReport:
    kept = tuple(Kept(there(NEW, DEV), "in use by a container") for _ in range(2))
    good = NodePruned("kind-worker", (there(OLD),), kept, 5 * MIB)
    nothing = NodePruned("kind-worker2")
    bad = NodePruned("kind-worker3", error=NodeError("it is paused", hint="unpause it"))
    return PruneReport((good, nothing) if dry_run else (good, nothing, bad), dry_run)


def test_a_dry_run_of_prune_lists_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout; on stderr, how to remove them."""
    show_pruned(report(dry_run=True))
    captured = capsys.readouterr()
    assert re.sub(r"\x1b\[[0-9;]*m", "", captured.out).splitlines() == [
        "kind-worker: would remove 1 image, 5 MiB",
        f"  - was {DEV} {OLD.short} (98 MiB, 2h old)",
        "  2 kept: in use by a container",
        "kind-worker2: nothing to remove",
    ]
    assert captured.err == "this was a dry run: nothing was removed; to remove, add --yes\n"


def test_prune_prints_removed_images_and_failed_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    """With a hint."""
    show_pruned(report(dry_run=False))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert lines[0] == "kind-worker: removed 1 image, 5 MiB freed"
    assert lines[-2:] == ["✗ kind-worker3: it is paused", "      try: unpause it"]


def test_prune_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    """One document on stdout."""
    show_json(report(dry_run=False).to_json())
    document = json.loads(capsys.readouterr().out)
    assert (document["version"], document["dry_run"], document["ok"]) == (1, False, False)
    worker, _, failed = document["nodes"]
    assert [image["image_id"] for image in worker["removed"]] == [str(OLD)]
    assert {kept["reason"] for kept in worker["kept"]} == {"in use by a container"}
    assert worker["bytes_freed"] == 5 * MIB
    assert failed["error"] == {
        "kind": "node-error",
        "message": "it is paused",
        "hint": "unpause it",
    }


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A Docker with one node, which is paused."""
    with Docker().listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        yield


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (["prune", "app:dev"], 2, "imgload prune app"),
        (["prune", "--older-than", "soon"], 2, "24h"),
        (["prune", "--keep", "-1"], 2, "--help"),
        (["prune", "--cache", "app"], 2, "imgload prune --cache"),
        (["prune", "-c", "other"], 4, "--cluster"),
        (["images", "-c", "other"], 4, "--cluster"),
        (["images", "-n", "other"], 4, "--node"),
        (["images"], 1, "docker unpause kind-control-plane"),
        (["prune", "--yes"], 1, "docker unpause kind-control-plane"),
    ],
)
def test_each_failure_has_its_exit_status_and_a_hint(
    run: Run, arguments: list[str], status: int, hint: str
) -> None:
    """As text, and as JSON."""
    outcome = run(*arguments)
    as_json = run(*arguments, "-o", "json")
    assert (outcome.status, as_json.status) == (status, status)
    assert hint in outcome.stdout + outcome.stderr
    if as_json.stdout:
        assert json.loads(as_json.stdout)["ok"] is False


def test_prune_cache_prints_the_size_and_clears_the_cache(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It needs no engine, and keeps the targets of links."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")
    EngineCache.load().record_image_id("engine", OLD, NEW)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    folder = tmp_path / "cache" / "imgload"
    (folder / "link").symlink_to(elsewhere)
    size = sum(os.lstat(file).st_size for file in folder.iterdir())
    dry = run("prune", "--cache", "-o", "json")
    assert json.loads(dry.stdout)["cache"] == {"folder": str(folder), "bytes_freed": size}
    assert "add --yes" in run("prune", "--cache").stderr
    assert EngineCache.load().image_id("engine", OLD) == NEW
    assert "freed" in run("prune", "--cache", "--yes").stdout
    assert list(folder.iterdir()) == []
    assert elsewhere.read_text() == "mine"
    assert json.loads(run("prune", "--cache", "-o", "json").stdout)["cache"]["bytes_freed"] == 0


def test_prune_cache_reports_a_file_that_cannot_be_removed(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hint shows who owns it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    EngineCache.load().record_image_id("engine", OLD, NEW)

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    outcome = run("prune", "--cache", "--yes")
    assert outcome.status == 1
    assert f"{tmp_path}/imgload/engines.json" in outcome.stderr
    assert f"ls -la {tmp_path}/imgload" in outcome.stderr
