"""Help, version, and errors of wrong usage."""

import inspect
import json
import re
import shlex

import click
import pytest
from click.testing import CliRunner, Result

import imgload
from imgload.cli import options
from imgload.cli.app import cli
from imgload.cli.load import load
from imgload.core import errors
from tests.unit.cli.conftest import Run

OPTIONS = {"--cluster", "--node", "--from", "--tag", "--platform", "--transport", "--dry-run"}
OUTPUT = {"--output", "--quiet"}


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="imgload")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_commands_and_exit_statuses(flag: str) -> None:
    """Scripts depend on them."""
    result = invoke(flag)
    assert result.exit_code == 0
    assert re.search(r"^  load +\S", result.output, re.MULTILINE)
    listed = {int(n) for n in re.findall(r"^ +(\d)  \S", result.output, re.MULTILINE)}
    classes = [c for c in vars(errors).values() if inspect.isclass(c)]
    raised = {c.exit_status for c in classes if issubclass(c, errors.ImgloadError)}
    assert listed == raised | {0}


@pytest.mark.parametrize(("typed", "meant"), [("laod", "load"), ("image", "images")])
def test_a_misspelt_command_gets_a_suggestion(typed: str, meant: str) -> None:
    """Other words get none."""
    assert f"No such command '{typed}'; did you mean '{meant}'?" in invoke(typed).output
    assert "did you mean" not in invoke("app:dev").output


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_load_has_every_option_and_examples(flag: str) -> None:
    """One line for each example."""
    result = invoke("load", flag)
    assert result.exit_code == 0
    assert set(re.findall(r"^  .*?(--[a-z-]+)", result.output, re.MULTILINE)) >= OPTIONS | OUTPUT
    assert len(examples(result.output)) > 5


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_help_of_each_command_starts_with_its_line_in_the_list(name: str) -> None:
    """The list is written without importing the commands."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help is not None
    first = inspect.cleandoc(command.help).splitlines()[0]
    assert re.search(rf"^  {name} +{re.escape(first)}$", invoke("--help").output, re.MULTILINE)
    assert len(first) < 60


@pytest.mark.parametrize("command", ["load", "verify", "registry push"])
def test_as_is_a_hidden_alias_of_tag(command: str) -> None:
    """`--as` was the option's name in the first versions."""
    assert "--as" not in re.findall(r"--[a-z-]+", invoke(*command.split(), "--help").output)
    parent: click.Command | None = cli
    for word in command.split():
        assert isinstance(parent, click.Group)
        parent = parent.get_command(click.Context(cli), word)
    assert parent is not None
    rest = ["--to", "http://r"] if "push" in command else []
    for option in ("--tag", "--as"):
        with parent.make_context(command, ["app:dev", option, "b", *rest]) as context:
            assert context.params["tag"] == "b"


def examples(text: str) -> list[str]:
    """Return the command of each example in a help text."""
    block = text.partition("Examples:\n")[2].partition("\n\n")[0]
    return [re.split(r" {2,}|(?<=-) (?=an )", line.strip())[0] for line in block.splitlines()]


@pytest.mark.parametrize("example", examples(invoke("load", "--help").output))
def test_each_example_in_the_help_can_be_parsed(example: str) -> None:
    """No example shows a renamed option."""
    command = next(part for part in example.split("|") if "imgload" in part)
    words = shlex.split(command)
    assert words[:2] == ["imgload", "load"]
    with load.make_context("load", words[2:] or ["-"]) as context:
        assert any(context.params[name] for name in ("images", "files", "manifests"))


def test_the_options_are_the_parameters_of_the_library() -> None:
    """Except for those of the output."""
    options = {parameter.name for parameter in load.params}
    functions = (imgload.load, imgload.load_list)
    parameters = {name for function in functions for name in inspect.signature(function).parameters}
    parameters -= {"on_event", "options", "archives"}  # archives are arguments, like images
    assert options == parameters | set(imgload.LoadOptions.__annotations__) | {
        "output",
        "quiet",
        "verbose",
    }


def test_help_and_version_are_commands_as_well() -> None:
    """As in kind, k3d, docker and gh."""
    assert invoke("version").stdout == invoke("--version").stdout
    for words in ((), ("load",), ("registry", "push")):
        outcome = invoke("help", *words)
        assert (outcome.exit_code, outcome.stdout) == (0, invoke(*words, "--help").stdout)
    for words in (("laod",), ("load", "images"), ("registry", "pull")):
        assert invoke("help", *words).exit_code == 2


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_prints_the_version_of_the_package(flag: str) -> None:
    """On stdout, for scripts."""
    result = invoke(flag)
    assert (result.exit_code, result.stdout) == (0, f"imgload {imgload.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", "app", "--nope"],
        ["load", "app", "--output", "xml"],
        ["load", "app", "--transport", "carrier-pigeon"],
        ["laod", "app"],
        ["--nope"],
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_help(run: Run, arguments: list[str]) -> None:
    """On stderr: a pipe must not read it."""
    outcome = run(*arguments)
    assert outcome.status == 2
    error, hint = outcome.stderr.splitlines()
    assert error.startswith("error: ")
    assert re.search(r"^  try: .*imgload (load )?--help$", hint)
    assert outcome.stdout == ""


@pytest.mark.parametrize(
    "asked", [["-o", "json"], ["--output", "json"], ["--output=json"], ["-ojson"], ["-qo", "json"]]
)
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["load", "app", "--nope"], "--nope"),
        (["load", "app", "--transport", "carrier-pigeon"], "carrier-pigeon"),
        (["laod", "app"], "laod"),
        (["load", "app", "--cluster"], "--cluster"),
        (["verify", "app", "--nope"], "--nope"),
    ],
)
def test_wrong_usage_prints_json_with_output_json(
    run: Run, asked: list[str], wrong: list[str], told: str
) -> None:
    """Like any other failure."""
    outcome = run(wrong[0], *asked, *wrong[1:])
    assert (outcome.status, outcome.stderr) == (2, "")
    document = json.loads(outcome.stdout)
    assert (document["version"], document["images"], document["ok"]) == (1, [], False)
    assert document["error"]["kind"] == "usage-error"
    assert told in document["error"]["message"]
    assert document["error"]["hint"].endswith("--help")


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", "json", "--nope"],
        ["load", "--nope", "-o", "text", "json"],
        ["load", "--nope", "--", "-o", "json"],
        ["load", "--from", "-", "json", "--nope"],
    ],
)
def test_the_word_json_does_not_select_the_format(run: Run, arguments: list[str]) -> None:
    """It may be the name of an image."""
    outcome = run(*arguments)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert "--nope" in outcome.stderr


def test_wrong_usage_found_by_the_library_prints_json(run: Run) -> None:
    """Neither an image nor an archive is named."""
    outcome = run("load", "--from", "/nonexistent", "-o", "json")
    assert (outcome.status, outcome.stderr) == (2, "")
    assert json.loads(outcome.stdout)["error"]["kind"] == "usage-error"


def test_an_option_without_its_value_is_reported(run: Run) -> None:
    """An unset shell variable, perhaps."""
    outcome = run("load", "app", "--cluster")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert "'--cluster'" in outcome.stderr


def test_a_misspelt_option_gets_a_suggestion(run: Run) -> None:
    """The message names the one that was meant."""
    assert "try: --cluster;" in run("load", "app", "--clutser", "kind").stderr.splitlines()[-1]
    for other in ("--debug", "--force"):
        assert run("load", other).stderr.splitlines()[-1] == "  try: imgload load --help"


@pytest.mark.parametrize("arguments", [[], ["registry"], ["kind"]])
def test_a_call_without_a_command_prints_the_help(run: Run, arguments: list[str]) -> None:
    """On stdout, with exit status 0, as gh and kind do; the commands are on the first screen."""
    outcome = run(*arguments)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout == run(*arguments, "--help").stdout
    assert "\nCommands:\n" in "\n".join(run().stdout.splitlines()[:16])


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("load", "no image given"),
        ("verify", "no image given"),
        ("watch", "no image given"),
        ("registry push --to http://127.0.0.1:1", "missing argument 'IMAGE...'"),
        ("registry connect", "missing argument 'URL'"),
        ("completion", "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"),
    ],
)
def test_a_command_without_its_argument_is_wrong_usage(
    run: Run, command: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before an engine is asked: a script that lost its arguments has not succeeded."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nosuch.sock")
    monkeypatch.setattr(options, "_is_piped", lambda: False)
    outcome = run(*command.split())
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr.splitlines()[0] == f"error: {error}"
    assert "imgload " in outcome.stderr.splitlines()[1]


@pytest.mark.parametrize("option", ["-c", "--from"])
def test_an_option_before_the_command_is_explained(run: Run, option: str) -> None:
    hint = run(option, "dev", "load", "app").stderr.splitlines()[-1]
    assert f"after the command: imgload load {option};" in hint


@pytest.mark.parametrize("arguments", [["--help"], ["load", "--help"], ["--version"]])
def test_requested_help_exits_with_0(run: Run, arguments: list[str]) -> None:
    """It is printed on stdout."""
    outcome = run(*arguments)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout


def helps(command: click.Command, *words: str) -> list[str]:
    """Return the help texts of a command and those below it."""
    below = (
        command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
    )
    texts = [invoke(*words, "--help").output]
    for name in below:
        assert isinstance(command, click.Group)
        child = command.get_command(click.Context(command), name)
        assert child
        texts += helps(child, *words, name)
    return texts


def test_help_fits_into_80_columns() -> None:
    lines = [line for text in helps(cli) for line in text.splitlines()]
    assert len(lines) > 200
    assert [line for line in lines if len(line) > 80] == []
