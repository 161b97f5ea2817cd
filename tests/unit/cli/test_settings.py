"""Defaults from variables and imgload.toml files."""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import platformdirs
import pytest
from jsonschema import Draft202012Validator

from imgload.cli.app import cli
from imgload.cli.load import load
from imgload.cli.settings import FILE, SETTINGS, read_settings, user_folder
from imgload.core.errors import UsageError
from imgload.loader import api
from imgload.loader.report import Report
from tests.unit.cli.conftest import Run

SCHEMA = json.loads(files("imgload").joinpath("settings.schema.json").read_bytes())
VARIABLES = {
    *("IMGLOAD_CLUSTER", "IMGLOAD_FROM", "IMGLOAD_TRANSPORT", "IMGLOAD_VERIFY", "IMGLOAD_KEEP"),
    *("IMGLOAD_PLATFORM", "IMGLOAD_STRICT_PLATFORM", "IMGLOAD_CACHE_SIZE", "KIND_CLUSTER_NAME"),
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of a project, in which the test runs, without any setting."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "project"
    (folder / ".git").mkdir(parents=True)
    (folder / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def write_user_file(text: str) -> None:
    folder = Path(user_folder())
    folder.mkdir(parents=True)
    (folder / FILE).write_text(text)


@pytest.fixture
def passed(run: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that returns the options that `imgload load` passes to the library."""
    options: dict[str, Any] = {}

    def record(images: object, **others: Any) -> Report:
        del images
        options.update(others)
        return Report(())

    monkeypatch.setattr(api, "load", record)

    def call(*arguments: str) -> dict[str, Any]:
        assert run("load", "app:dev", *arguments).status == 0
        return options

    return call


def test_the_folder_of_the_user_is_that_of_platformdirs() -> None:
    assert user_folder() == platformdirs.user_config_dir("imgload")


def test_an_option_precedes_a_variable_and_a_variable_the_files(
    passed: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project's file precedes the user's."""
    assert passed()["transport"] == "auto"
    write_user_file('transport = "pull"\nverify = "deep"\n')
    assert (passed()["transport"], passed()["verify"]) == ("pull", "deep")
    (project / FILE).write_text('transport = "import"\n')
    assert (passed()["transport"], passed()["verify"]) == ("import", "deep")
    monkeypatch.setenv("IMGLOAD_TRANSPORT", "archive")
    assert passed()["transport"] == "archive"
    assert passed("--transport", "delta")["transport"] == "delta"


def test_the_cluster_has_several_sources(
    passed: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--name`` is kind's name for ``--cluster``, and KIND_CLUSTER_NAME its default."""
    assert passed()["cluster"] == ()
    (project / FILE).write_text('cluster = ["a", "b"]\n')
    assert passed()["cluster"] == ("a", "b")
    assert passed("--node", "x")["cluster"] == ()
    assert passed("--node", "*x")["cluster"] == ("a", "b")
    (project / FILE).write_text('cluster = "a"\n')
    assert passed()["cluster"] == ("a",)
    monkeypatch.setenv("KIND_CLUSTER_NAME", "k")
    assert passed()["cluster"] == ("k",)
    monkeypatch.setenv("IMGLOAD_CLUSTER", "c d")
    assert passed()["cluster"] == ("c", "d")
    assert passed("--node", "x")["cluster"] == ()
    assert passed("--name", "e", "-c", "f", "-n", "x")["cluster"] == ("e", "f")


def test_the_builder_of_skaffold_has_no_default_cluster(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skaffold deploys to the kube context's cluster."""
    (project / FILE).write_text('cluster = "a"\n')
    monkeypatch.setenv("IMGLOAD_CLUSTER", "c")
    command = cli.get_command(click.Context(cli), "skaffold")
    assert command
    with command.make_context("skaffold", [], cli.make_context("imgload", ["skaffold"])) as context:
        assert context.params["cluster"] == ()


def test_the_nearest_file_within_a_repository_counts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may write to the folders above: to /tmp, for example."""
    (project / FILE).write_text("keep = 1\n")
    (project.parent / FILE).write_text("keep = 2\n")
    monkeypatch.chdir("deep/er")
    assert read_settings() == {"keep": 1}
    (project / "deep" / FILE).write_text("keep = 3\n")
    assert read_settings() == {"keep": 3}
    (project / "deep" / FILE).unlink()
    (project / ".git").rmdir()
    assert read_settings() == {}
    (project / "deep/er" / FILE).write_text("keep = 4\n")
    assert read_settings() == {"keep": 4}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clutser = 'a'", "no such setting: 'clutser'"),
        ("cluster = 1", "cluster must be a string or a list of strings, not 1"),
        ("cluster = ['a', 1]", "cluster must be"),
        ("keep = true", "keep must be a number"),
        ("strict-platform = 'yes'", "strict-platform must be true or false"),
        ("transport = 'pigeon'", "transport must be one of auto, pull"),
        ("from = 'tcp://evil:2375'", "from must be docker or podman in a project"),
        ("cluster = ", "is not valid TOML"),
        ("#" * (65 << 10), "is larger than 64 KiB"),
    ],
)
def test_an_invalid_file_is_an_error_that_names_it(
    run: Run, project: Path, text: str, words: str
) -> None:
    """As text and as JSON, by every command that has defaults."""
    (project / FILE).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_settings()
    assert str(project / FILE) in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint
    outcome = run("load", "app:dev")
    assert outcome.status == 2
    assert words in outcome.stderr
    document = json.loads(run("load", "app:dev", "-o", "json").stdout)
    assert document["error"]["kind"] == "usage-error"
    assert run("version").status == 0


def test_a_url_as_source_is_for_the_file_of_the_user() -> None:
    """A project, which others may have written, does not choose an address to connect to."""
    write_user_file("from = 'unix:///run/other.sock'\n")
    assert read_settings() == {"source": "unix:///run/other.sock"}


def test_the_schema_has_every_setting_and_choice() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == "urn:imgload:schema:settings:1"
    assert set(SCHEMA["properties"]) == set(SETTINGS)
    options = {parameter.name: parameter for parameter in load.params}
    for name in ("transport", "verify"):
        kind = options[name].type
        assert isinstance(kind, click.Choice)
        assert SCHEMA["properties"][name]["enum"] == list(kind.choices)


@pytest.mark.parametrize(
    "text",
    ["cluster = 'a'", "cluster = ['a']", "keep = 0", "from = 'docker'", "strict-platform = true"],
)
def test_valid_files_match_the_schema(project: Path, text: str) -> None:
    (project / FILE).write_text(text)
    assert read_settings()
    assert not list(Draft202012Validator(SCHEMA).iter_errors(tomllib.loads(text)))
