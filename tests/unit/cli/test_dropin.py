"""The drop-ins' exit statuses, and what is said where."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgload.cli.dropin import run as stand_in
from imgload.tools.dropins.k3d import K3d
from imgload.tools.dropins.kind import Kind
from imgload.tools.dropins.tool import Tool
from tests.unit.cli.conftest import Outcome, Run
from tests.unit.cli.stub import Docker, node

Ask = Callable[..., Outcome]
KIND, K3D = Kind(), K3d()


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Ask]:
    """Give a function that calls a drop-in, with a Docker that has app:dev and a paused node."""

    def ask_it(tool: Tool, *arguments: str) -> Outcome:
        return Outcome(stand_in(tool, arguments), *capsys.readouterr())

    with Docker((node(), node("b-control-plane", cluster="b"))).listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        monkeypatch.setenv("PATH", str(tmp_path))
        yield ask_it


FAILURES = {
    "usage": (["load", "docker-image"], "ERROR: a list of image names is required"),
    "flag": (["load", "docker-image", "--nope"], "ERROR: unknown flag: --nope"),
    "image": (["load", "docker-image", "no"], 'ERROR: image: "no" not present locally'),
    "cluster": (
        ["load", "docker-image", "app:dev", "-n", "x"],
        'ERROR: no nodes found for cluster "x"',
    ),
    "node": (["load", "docker-image", "app:dev", "--nodes", "x"], 'ERROR: unknown node: "x"'),
    "archive": (["load", "image-archive", "/no"], "ERROR: stat /no: no such file or directory"),
    "paused": (
        ["load", "docker-image", "app:dev"],
        "ERROR: failed to load image: docker.io/library/app:dev on kind-control-plane",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), FAILURES.values(), ids=list(FAILURES))
def test_every_failure_is_exit_status_1_and_on_stderr(
    ask: Ask, arguments: list[str], message: str
) -> None:
    """kind has no other; the message is kind's, and what to do comes after it."""
    outcome = ask(KIND, *arguments)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert message in outcome.stderr
    assert "\x1b" not in outcome.stderr
    assert "  try: " in outcome.stderr


@pytest.mark.parametrize("arguments", [case[0] for case in FAILURES.values()], ids=list(FAILURES))
def test_quiet_says_nothing_at_all(ask: Ask, arguments: list[str]) -> None:
    """As kind's; the status is the same."""
    assert ask(KIND, "-q", *arguments) == Outcome(1, "", "")


def test_load_alone_is_help_and_a_failure(ask: Ask) -> None:
    """A script that lost its arguments has not loaded anything."""
    outcome = ask(KIND, "load")
    assert outcome.status == 1
    assert outcome.stdout.startswith("Loads images")
    assert outcome.stderr == "ERROR: Subcommand is required\n"


@pytest.mark.parametrize(
    ("tool", "call"), [(KIND, "load -h"), (KIND, "load docker-image -h"), (K3D, "image load -h")]
)
def test_help_is_on_stdout(ask: Ask, tool: Tool, call: str) -> None:
    """With success."""
    outcome = ask(tool, *call.split())
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.count("Usage:") == 1


def test_a_failing_cluster_does_not_stop_the_next(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """k3d goes on, too; that there are no k3d nodes here does not matter to this."""
    monkeypatch.setattr(K3d, "label", Kind.label)
    outcome = ask(K3D, "image", "import", "app:dev", "-c", "kind", "-c", "b")
    assert (outcome.status, outcome.stdout) == (1, "")
    assert "kind-control-plane is paused" in outcome.stderr
    assert "b-control-plane is paused" in outcome.stderr


def test_without_the_real_one_there_is_a_status_for_it(ask: Ask) -> None:
    """The shell's for a command that is not found; --quiet hides that from nobody."""
    for arguments in (["get", "clusters"], ["-q", "version"], []):
        outcome = ask(KIND, *arguments)
        assert (outcome.status, outcome.stdout) == (127, "")
        assert "https://kind.sigs.k8s.io" in outcome.stderr


def test_a_provider_that_is_not_known_here_is_said(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the real kind nothing can be done for nerdctl's clusters."""
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "nerdctl")
    outcome = ask(KIND, "load", "docker-image", "app:dev")
    assert (outcome.status, outcome.stdout) == (127, "")
    assert "KIND_EXPERIMENTAL_PROVIDER is nerdctl" in outcome.stderr


@pytest.mark.parametrize("name", ["kind", "k3d"])
def test_the_commands_own_help_is_imgloads(run: Run, name: str) -> None:
    """The other program's help is that program's own, where it is called by its name."""
    for arguments in ([name, "--help"], [name]):
        outcome = run(*arguments)
        shown = outcome.stdout + outcome.stderr
        assert f"imgload {name} --install" in shown
        assert "--uninstall DIR" in shown


@pytest.mark.parametrize("name", ["kind", "k3d"])
def test_it_is_installed_and_taken_away(run: Run, tmp_path: Path, name: str) -> None:
    """Nothing is on stdout; a second time there is nothing to take away."""
    done = run(name, "--install", str(tmp_path))
    assert (done.status, done.stdout) == (0, "")
    assert (tmp_path / name).exists()
    assert run(name, f"--uninstall={tmp_path}").status == 0
    assert not (tmp_path / name).exists()
    again = run(name, "--uninstall", str(tmp_path))
    assert (again.status, again.stdout) == (2, "")


@pytest.mark.parametrize(
    "arguments",
    [["--install"], ["--install", "a", "b"], ["--install", "a", "--uninstall", "b"]],
)
def test_install_stands_alone(run: Run, arguments: list[str]) -> None:
    """Wrong usage of imgload, with imgload's status."""
    assert run("kind", *arguments).status == 2


def test_no_folder_is_not_the_working_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the shell that was not set."""
    monkeypatch.chdir(tmp_path)
    assert run("kind", "--install", "").status == 2
    assert run("kind", "--install=").status == 2
    assert list(tmp_path.iterdir()) == []


def test_arguments_come_to_the_other_program_as_they_are(run: Run, tmp_path: Path) -> None:
    """``imgload kind`` takes no part of them for its own."""
    outcome = run("kind", "load", "image-archive", "--", "--install", str(tmp_path))
    assert outcome.status == 1
    assert "stat --install" in outcome.stderr
