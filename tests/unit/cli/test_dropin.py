"""Exit statuses and messages of the drop-ins."""

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from imgload.cli.dropin import run as stand_in
from imgload.tools.dropins.tool import K3D, KIND, Tool
from tests.unit.cli.conftest import Outcome, Run
from tests.unit.cli.stub import Docker, node

Ask = Callable[..., Outcome]


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
def test_each_failure_of_kind_exits_with_1(ask: Ask, arguments: list[str], message: str) -> None:
    """The message on stderr is kind's, followed by a hint."""
    outcome = ask(KIND, *arguments)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert message in outcome.stderr
    assert "\x1b" not in outcome.stderr
    assert "  try: " in outcome.stderr


@pytest.mark.parametrize("arguments", [case[0] for case in FAILURES.values()], ids=list(FAILURES))
def test_quiet_prints_nothing(ask: Ask, arguments: list[str]) -> None:
    """As in kind; the exit status is the same."""
    assert ask(KIND, "-q", *arguments) == Outcome(1, "", "")


def test_load_without_a_subcommand_prints_help_and_fails(ask: Ask) -> None:
    """A script that lost its arguments has not loaded anything."""
    outcome = ask(KIND, "load")
    assert outcome.status == 1
    assert outcome.stdout.startswith("Loads images")
    assert outcome.stderr == "ERROR: Subcommand is required\n"


@pytest.mark.parametrize(
    ("tool", "call"), [(KIND, "load -h"), (KIND, "load docker-image -h"), (K3D, "image load -h")]
)
def test_help_of_a_drop_in_is_printed_on_stdout(ask: Ask, tool: Tool, call: str) -> None:
    """The exit status is 0."""
    outcome = ask(tool, *call.split())
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.count("Usage:") == 1


def test_k3d_continues_after_a_failed_cluster(ask: Ask) -> None:
    """As k3d does; its drop-in looks for kind's clusters here."""
    k3d = attrs.evolve(K3D, name="kind")
    outcome = ask(k3d, "image", "import", "app:dev", "-c", "kind", "-c", "b")
    assert (outcome.status, outcome.stdout) == (1, "")
    assert "kind-control-plane is paused" in outcome.stderr
    assert "b-control-plane is paused" in outcome.stderr


def test_a_command_for_the_real_program_exits_with_127_without_it(ask: Ask) -> None:
    """The shell's status for a command that is not found, also with --quiet."""
    for arguments in (["get", "clusters"], ["-q", "version"], []):
        outcome = ask(KIND, *arguments)
        assert (outcome.status, outcome.stdout) == (127, "")
        assert "https://kind.sigs.k8s.io" in outcome.stderr


def test_an_unknown_provider_needs_the_real_kind(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """imgload does not know nerdctl's clusters."""
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "nerdctl")
    outcome = ask(KIND, "load", "docker-image", "app:dev")
    assert (outcome.status, outcome.stdout) == (127, "")
    assert "KIND_EXPERIMENTAL_PROVIDER is nerdctl" in outcome.stderr


@pytest.mark.parametrize("name", ["kind", "k3d"])
def test_help_of_imgload_kind_is_its_own(run: Run, name: str) -> None:
    """It explains --install and --uninstall."""
    for arguments in ([name, "--help"], [name]):
        outcome = run(*arguments)
        shown = outcome.stdout + outcome.stderr
        assert f"imgload {name} --install" in shown
        assert "--uninstall DIR" in shown


@pytest.mark.parametrize("name", ["kind", "k3d"])
def test_install_and_uninstall_write_and_remove_the_program(
    run: Run, tmp_path: Path, name: str
) -> None:
    """A second --uninstall is wrong usage."""
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
def test_install_takes_no_other_arguments(run: Run, arguments: list[str]) -> None:
    """Wrong usage of imgload, with imgload's status."""
    assert run("kind", *arguments).status == 2


def test_install_rejects_an_empty_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unset shell variable."""
    monkeypatch.chdir(tmp_path)
    assert run("kind", "--install", "").status == 2
    assert run("kind", "--install=").status == 2
    assert list(tmp_path.iterdir()) == []


def test_arguments_reach_the_other_program_unparsed(run: Run, tmp_path: Path) -> None:
    """Its options may be named like imgload's."""
    outcome = run("kind", "load", "image-archive", "--", "--install", str(tmp_path))
    assert outcome.status == 1
    assert "stat --install" in outcome.stderr
