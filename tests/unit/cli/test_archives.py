"""Archives as arguments, and from a pipe, as in k3d."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgload.cli.load import load, verify
from imgload.loader import api
from imgload.loader.loader import Loader
from imgload.loader.report import Report
from imgload.oci.reference import Reference
from imgload.sources.archive import ArchiveSource
from tests.unit.archives import Image, layer, oci, pack
from tests.unit.cli.conftest import Run
from tests.unit.cli.stub import Docker
from tests.unit.clusters.nodes.test_node import node_on

Parsed = Callable[..., dict[str, object]]


@pytest.fixture
def parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parsed:
    """Return a function that returns the arguments of `imgload.load` for those of the command."""
    passed: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.tar").touch()
    (tmp_path / "app").mkdir()

    class ParsedError(Exception):
        """Ends the command."""

    def record(images: object, **options: object) -> None:
        passed.update(options, images=images)
        raise ParsedError

    monkeypatch.setattr(api, "load", record)
    monkeypatch.setattr(api, "verify", record)

    def call(*arguments: str, command: str = "load") -> dict[str, object]:
        with pytest.raises(ParsedError):
            {"load": load, "verify": verify}[command].main([*arguments], standalone_mode=False)
        return passed

    return call


@pytest.mark.parametrize("command", ["load", "verify"])
@pytest.mark.parametrize(
    ("arguments", "images", "archives"),
    [
        (["app.tar"], (), ("app.tar",)),
        (["./app.tar", "db:dev"], ("db:dev",), ("./app.tar",)),
        (["app"], ("app",), ()),
        (["./app", "/absent.tar", "-"], (), ("./app", "/absent.tar", "-")),
        (["absent.tar", "absent.tgz"], (), ("absent.tar", "absent.tgz")),
        (["app.tar", "--from", "docker"], ("app.tar",), ()),
    ],
)
def test_an_argument_that_is_a_file_is_an_archive(
    parsed: Parsed,
    command: str,
    arguments: list[str],
    images: tuple[str, ...],
    archives: tuple[str, ...],
) -> None:
    """A folder needs a path, since images are called like the folders that they are built from."""
    passed = parsed(*arguments, command=command)
    assert (passed["images"], passed["archives"]) == (images, archives)


@contextmanager
def standard_input(file: int) -> Iterator[None]:
    """Replace the standard input of this process."""
    before = os.dup(0)
    os.dup2(file, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


@pytest.mark.parametrize("arguments", [(), ("-c", "dev")])
def test_a_pipe_is_an_archive_if_nothing_is_named(
    parsed: Parsed, arguments: tuple[str, ...]
) -> None:
    """And so is a redirected file."""
    reader, writer = os.pipe()
    with Path("app.tar").open("rb") as file:
        for source in (reader, file.fileno()):
            with standard_input(source):
                assert parsed(*arguments)["archives"] == ("-",)
                assert parsed("app:dev", *arguments)["archives"] == ()
    os.close(reader)
    os.close(writer)


def test_without_a_pipe_an_image_must_be_named(run: Run, tmp_path: Path) -> None:
    """Otherwise the command would wait for a terminal."""
    with Docker().listening(tmp_path) as url:
        done = subprocess.run(
            [sys.executable, "-m", "imgload", "load", "-c", "kind"],
            env={**os.environ, "DOCKER_HOST": url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "error: no image given" in done.stderr
    assert run("load").status == 2


def archive(folder: Path, name: str) -> ArchiveSource:
    path = folder / f"{Reference.parse(name).familiar.partition(':')[0]}.tar"
    path.write_bytes(pack(oci(Image((layer(name),), name))))
    return ArchiveSource(str(path))


def planned_names(report: Report) -> list[str]:
    return [Reference.parse(image.reference).familiar for image in report.images]


def test_archives_are_planned_together_with_images(tmp_path: Path) -> None:
    """All images of each archive, and the named one of the sources."""
    one, two, three = (archive(tmp_path, f"{name}:v1") for name in ("one", "two", "three"))
    made = Loader([three], [node_on(tmp_path)], archives=[one, two])
    names = planned_names(made.load(["three:v1"], dry_run=True))
    assert names == ["one:v1", "two:v1", "three:v1"]
    made = Loader([three], [node_on(tmp_path)], archives=[one])
    assert planned_names(made.load([], dry_run=True)) == ["one:v1"]


def test_a_file_that_is_also_an_image_gets_a_note(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file wins, as in k3d."""
    monkeypatch.chdir(tmp_path)
    Path("app:dev").write_bytes(pack(oci(Image((layer("x"),), "other:v1"))))
    with Docker().listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        outcome = run("load", "app:dev", "-c", "kind")
        assert "note: app:dev is a file, and an image in docker; loading the file" in outcome.stderr
        assert "docker.io/library/other:v1" in outcome.stderr + outcome.stdout
        assert "is a file" not in run("load", "./app:dev", "-c", "kind").stderr
