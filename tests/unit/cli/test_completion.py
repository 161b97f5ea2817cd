"""Shell completion without an engine, or with a stub of one."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from imgload.cli import completion
from imgload.cli.app import cli
from imgload.cli.completion import VARIABLE, Bash, join_words, kept_length
from imgload.cli.kubectl import print_candidates
from imgload.clusters.cluster import find_clusters
from imgload.loader.session import Session
from tests.unit.cli import stub
from tests.unit.cli.conftest import Run
from tests.unit.loader.test_record import write_record


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ("imgload load app", ["imgload", "load", "app"]),
        ("imgload load app : dev", ["imgload", "load", "app:dev"]),
        ("imgload load app :", ["imgload", "load", "app:"]),
        ("imgload load a : 5000/app : dev b", ["imgload", "load", "a:5000/app:dev", "b"]),
        ("imgload load --cluster = kind", ["imgload", "load", "--cluster=kind"]),
        ("imgload load --tag = app : dev", ["imgload", "load", "--tag=app:dev"]),
    ],
)
def test_join_words_joins_the_parts_of_a_word(words: str, joined: list[str]) -> None:
    """Bash splits words at COMP_WORDBREAKS."""
    assert join_words(words.split()) == joined


def test_join_words_keeps_an_empty_word() -> None:
    """The cursor is after a space: the name before it is complete."""
    assert join_words(["load", "app", ":", "dev", ""])[-1] == ""
    assert join_words(["load", "app", ":", ""])[-1] == ""


@pytest.mark.parametrize(
    ("parts", "length"),
    [
        (["app"], 0),
        ([""], 0),
        (["app", ":", "d"], 4),
        (["app", ":"], 4),
        (["--cluster", "=", "ki"], 0),
        (["--cluster", "="], 0),
        (["--tag", "=", "app", ":", "d"], 4),
        (["--tag=app:d"], 0),
        (["app:d"], 0),
        (["--tag"], 0),
    ],
)
def test_kept_length_ends_at_the_last_word_break(parts: list[str], length: int) -> None:
    """Of an option with its value, only the value is completed."""
    assert kept_length("".join(parts), parts[-1]) == length


def words(monkeypatch: pytest.MonkeyPatch, *typed: str) -> list[str]:
    """Return what bash is answered."""
    monkeypatch.setenv("COMP_WORDS", "\n".join(typed))
    monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
    return Bash(cli, {}, "imgload", VARIABLE).complete().split()


def test_bash_completes_commands_options_and_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is asked."""
    assert "plain,watch" in words(monkeypatch, "imgload", "wa")
    assert words(monkeypatch, "imgload", "load", "--dry") == ["plain,--dry-run"]
    assert "plain,linux/arm64" in words(monkeypatch, "imgload", "load", "--platform", "linux/a")
    assert words(monkeypatch, "imgload", "load", "--from", "pod") == ["plain,podman"]
    assert words(monkeypatch, "imgload", "load", "--from", "./a") == ["file,./a"]


def test_completion_without_an_engine_prints_nothing(run: Run) -> None:
    """A message would corrupt the user's command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "bash_complete")
        for typed in ("imgload\nload\nap", "imgload\nload\n-c\nki", "imgload\nload\n--from\nx\na"):
            patch.setenv("COMP_WORDS", typed)
            patch.setenv("COMP_CWORD", str(typed.count("\n")))
            outcome = run()
            assert (outcome.status, outcome.stdout.strip(), outcome.stderr) == (0, "", "")


def test_completion_omits_names_that_need_quoting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's label is untrusted, and becomes part of a command line."""
    bad = ["$(reboot)", "a;b", "a\nplain,b", "a b"]
    nodes = [stub.node(f"{name}-control-plane", cluster=name) for name in (*bad, "kind")]
    with stub.Docker(containers=nodes).listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        assert words(monkeypatch, "imgload", "load", "-c", "") == ["plain,kind"]
        assert words(monkeypatch, "imgload", "load", "-c", "kind", "-n", "") == [
            "plain,kind-control-plane"
        ]


def test_completion_of_restore_offers_the_recorded_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the selected cluster, or else of all."""
    nodes = [stub.node(f"{name}-control-plane", cluster=name) for name in "ab"]
    with stub.Docker(containers=nodes).listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        with Session.open(has_images=False) as session:
            for cluster in find_clusters(session.engines):
                write_record(cluster, f"docker.io/library/app:{cluster.name}")
        assert words(monkeypatch, "imgload", "restore", "-c", "b", "ap") == ["plain,app:b"]
        assert words(monkeypatch, "imgload", "restore", "") == ["plain,app:a", "plain,app:b"]


def test_completion_does_not_wait_for_a_slow_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user pressed the key a second ago."""
    monkeypatch.setattr(completion, "_SECONDS", 0.05)
    docker = stub.Docker(on_list=lambda: __import__("time").sleep(1))
    with docker.listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        assert words(monkeypatch, "imgload", "load", "-c", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(run: Run, shell: str) -> None:
    """On stdout, to be evaluated."""
    outcome = run("completion", shell)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert f"{VARIABLE}={shell}_complete" in outcome.stdout


def test_print_candidates_uses_the_format_of_cobra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One candidate a line, then a ShellCompDirective: whether to complete files."""
    for typed, answer in [
        (["load", "--tr"], "--transport\n:4\n"),
        (["load", "--from", "./x"], ":0\n"),
        (["wat"], "watch\n:4\n"),
    ]:
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-imgload", *typed])
        print_candidates()
        assert capsys.readouterr().out == answer


def test_each_parameter_can_be_completed() -> None:
    """Options name the kind of their candidates by text."""
    for command in (cli.get_command(click.Context(cli), n) for n in cli.list_commands(None)):  # type: ignore[arg-type]
        assert command
        for parameter in command.params:
            context = click.Context(command)
            assert isinstance(parameter.shell_complete(context, "no-such-thing"), list)


def test_load_does_not_import_completion() -> None:
    """Start-up is part of every load."""
    code = "import sys, imgload.cli.load; print('imgload.cli.completion' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert shown.stdout == b"False\n"
