"""Every command rejects an invalid image name before it does anything else."""

import pytest

from tests.unit.cli.conftest import Run

NOWHERE = "http://127.0.0.1:1"
CALLS = [
    "load app:dev:1",
    "load APP",
    "load app:dev APP --from docker",
    "load a b --tag c",
    "load a b --also c",
    "load a --tag C",
    "load a --as C",
    "load a --also C",
    "load a --platform ???",
    "load a --platform foo",
    "load APP --cluster absent",
    "load APP --from -",
    "verify APP",
    "verify a b --tag c",
    "verify a --platform ???",
    f"registry push APP --to {NOWHERE}",
    f"registry push a --tag C --to {NOWHERE}",
    f"registry push a b --tag c --to {NOWHERE}",
    "doctor APP",
    "watch APP",
]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no engine answer."""
    for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(variable, "unix:///nowhere")


@pytest.mark.parametrize("call", CALLS)
def test_an_invalid_name_is_rejected_before_an_engine_is_asked(run: Run, call: str) -> None:
    """Neither engine nor registry answers here, and the error does not mention them."""
    outcome = run(*call.split())
    assert outcome.status == 2
    assert outcome.stderr.startswith("error: ")
    assert "nowhere" not in outcome.stderr


@pytest.mark.parametrize("command", ["load", "verify", f"registry push --to {NOWHERE}"])
def test_an_empty_name_is_rejected(run: Run, command: str) -> None:
    """An unset shell variable, perhaps."""
    outcome = run(*command.split(), "")
    assert outcome.status == 2
    assert "not an image name: ''" in outcome.stderr


@pytest.mark.parametrize(
    "call", ["load abcd", f"load sha256:{'a' * 64}", f"load {'a' * 64}", "load a a --as c"]
)
def test_an_image_id_is_not_rejected(run: Run, call: str) -> None:
    """Short or full; nor is one image that is named twice."""
    assert run(*call.split()).status == 5


def test_a_drop_in_rejects_an_invalid_name_as_early(run: Run) -> None:
    """With the other program's exit status."""
    outcome = run("kind", "load", "docker-image", "APP")
    assert outcome.status == 1
    assert "not an image name: 'APP'" in outcome.stderr
    assert "nowhere" not in outcome.stderr
