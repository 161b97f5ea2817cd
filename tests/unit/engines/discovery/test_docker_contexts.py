"""Docker contexts, as the docker CLI keeps them, and what else may be in their place."""

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.candidates import (
    Candidate,
    chosen_context,
    named_address,
    other_contexts,
)
from imgload.engines.discovery.discover import discover
from tests.unit.bounds import memory_below, within


def context(folder: Path, name: str, endpoint: object, **meta: object) -> Path:
    """Write a context as the docker CLI does; return the folder of its TLS files."""
    identity = sha256(name.encode()).hexdigest()
    path = folder / "contexts/meta" / identity / "meta.json"
    path.parent.mkdir(parents=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}, **meta}
    path.write_text(json.dumps(document))
    return folder / "contexts/tls" / identity / "docker"


def chosen(folder: Path, **variables: str) -> Candidate | None:
    return chosen_context({"DOCKER_CONFIG": str(folder), **variables})


def current(folder: Path, name: object) -> None:
    (folder / "config.json").write_text(json.dumps({"auths": {}, "currentContext": name}))


def test_chosen_context_is_the_current_one(tmp_path: Path) -> None:
    """Without having been named for this run: its silence is no surprise."""
    context(tmp_path, "colima", {"Host": "unix:///c.sock", "SkipTLSVerify": False})
    current(tmp_path, "colima")
    found = chosen(tmp_path)
    assert found
    assert (found.url, found.chosen, found.explicit, found.tls) == (
        "unix:///c.sock",
        True,
        False,
        None,
    )
    assert found.undo == "docker context use default"


def test_chosen_context_prefers_the_variable(tmp_path: Path) -> None:
    """And is what has to be unset."""
    for name in ("one", "two"):
        context(tmp_path, name, {"Host": f"unix:///{name}"})
    current(tmp_path, "one")
    found = chosen(tmp_path, DOCKER_CONTEXT="two")
    assert found
    assert (found.url, found.explicit, found.undo) == ("unix:///two", True, "unset DOCKER_CONTEXT")
    assert chosen(tmp_path, DOCKER_CONTEXT="default") is None


@pytest.mark.parametrize("settings", [None, "{}", "[]", '"x"', '{"currentContext": ""}', "null"])
def test_chosen_context_is_none_without_a_choice(tmp_path: Path, settings: str | None) -> None:
    """No settings, or none of contexts."""
    if settings is not None:
        (tmp_path / "config.json").write_text(settings)
    assert chosen(tmp_path) is None


@pytest.mark.parametrize("value", [1, None, [], {}, True])
def test_chosen_context_ignores_a_name_of_a_wrong_type(tmp_path: Path, value: object) -> None:
    """Only text can name a context."""
    current(tmp_path, value)
    assert chosen(tmp_path) is None


def test_chosen_context_is_none_for_the_default_address(tmp_path: Path) -> None:
    """An empty host stands for it."""
    context(tmp_path, "plain", {"Host": "", "SkipTLSVerify": False})
    assert chosen(tmp_path, DOCKER_CONTEXT="plain") is None


def problem(found: Candidate | None) -> EngineUnreachable:
    assert found
    assert (found.url, found.chosen) == ("", True)
    assert isinstance(found.problem, EngineUnreachable)
    return found.problem


@pytest.mark.parametrize(
    "name",
    ["gone", "../../../etc", "/etc/passwd", "..", "a/b", "\udcff", "x" * 10_000, "\n"],
)
def test_a_missing_context_is_a_problem(tmp_path: Path, name: str) -> None:
    """Whatever it is called: no name becomes a path."""
    context(tmp_path, "there", {"Host": "unix:///t"})
    error = problem(chosen(tmp_path, DOCKER_CONTEXT=name))
    assert "available: default, there" in error.message
    assert "docker context use" in error.hint


@pytest.mark.parametrize(
    "endpoint", [None, [], "unix:///x", 1, {"Host": 1}, {"Host": None}, {"Host": ["unix:///x"]}]
)
def test_a_context_without_an_address_is_a_problem(tmp_path: Path, endpoint: object) -> None:
    """The CLI makes such for other orchestrators; others make worse."""
    context(tmp_path, "odd", endpoint)
    error = problem(chosen(tmp_path, DOCKER_CONTEXT="odd"))
    assert "no engine's address" in error.message
    assert "docker context inspect odd" in error.hint


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{}{}", b"nul"])
def test_a_context_of_invalid_json_is_a_problem(tmp_path: Path, text: bytes) -> None:
    """With the file's name."""
    context(tmp_path, "bad", {"Host": "unix:///x"})
    [file] = (tmp_path / "contexts/meta").glob("*/meta.json")
    file.write_bytes(text)
    with within(2):
        assert str(file) in problem(chosen(tmp_path, DOCKER_CONTEXT="bad")).message


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b'{"currentContext": "x"'])
def test_settings_of_invalid_json_are_an_error(tmp_path: Path, text: bytes) -> None:
    """What they choose cannot be known."""
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(EngineUnreachable, match=r"config\.json cannot be used"):
        chosen(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """Memory stays bounded."""
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 31)
    with memory_below(20 << 20), within(2), pytest.raises(EngineUnreachable, match="longer than"):
        chosen(tmp_path)


def test_a_named_pipe_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    """Nobody ever writes into it."""
    os.mkfifo(tmp_path / "config.json")
    with within(2), pytest.raises(EngineUnreachable, match="not a file"):
        chosen(tmp_path)


def test_a_context_has_its_tls_files(tmp_path: Path) -> None:
    """Those that are there."""
    folder = context(tmp_path, "remote", {"Host": "tcp://h:2376"})
    folder.mkdir(parents=True)
    (folder / "ca.pem").write_text("x")
    found = chosen(tmp_path, DOCKER_CONTEXT="remote")
    assert found
    assert found.tls
    assert (found.tls.ca, found.tls.cert, found.tls.verify) == (folder / "ca.pem", None, True)


def test_an_address_of_the_context_is_used_with_its_tls_files(tmp_path: Path) -> None:
    """Such as that of `imgload restore`, which has the address only."""
    url = "tcp://127.0.0.1:1"
    folder = context(tmp_path, "remote", {"Host": url})
    folder.mkdir(parents=True)
    (folder / "ca.pem").write_text("x")
    variables = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "remote", "HOME": "/none"}
    given = [named_address(address, "--from", {}) for address in (url, "tcp://127.0.0.1:2")]
    first, second, *_ = discover(variables, also=given).attempts
    assert first.candidate.tls
    assert (first.candidate.tls.ca, second.candidate.tls) == (folder / "ca.pem", None)


@pytest.mark.parametrize(("skip", "verify"), [(True, False), (False, True), ("yes", True)])
def test_only_true_skips_the_certificate(tmp_path: Path, skip: object, verify: bool) -> None:  # noqa: FBT001
    """With or without files."""
    folder = context(tmp_path, "remote", {"Host": "tcp://h:2376", "SkipTLSVerify": skip})
    found = chosen(tmp_path, DOCKER_CONTEXT="remote")
    assert found
    assert (found.tls is None) is verify
    folder.mkdir(parents=True)
    found = chosen(tmp_path, DOCKER_CONTEXT="remote")
    assert found
    assert found.tls
    assert found.tls.verify is verify


def test_other_contexts_lists_all_contexts(tmp_path: Path) -> None:
    """With the command that takes each; what cannot be read is left out."""
    for name in ("b", "a", "plain"):
        context(tmp_path, name, {"Host": f"unix:///{name}" if name != "plain" else ""})
    broken = tmp_path / "contexts/meta/broken/meta.json"
    broken.parent.mkdir()
    broken.write_text("{")
    found = list(other_contexts({"DOCKER_CONFIG": str(tmp_path)}))
    assert [(c.url, c.take) for c in found] == [
        ("unix:///a", "docker context use a"),
        ("unix:///b", "docker context use b"),
    ]
    assert not any(c.chosen or c.explicit for c in found)


def test_chosen_context_reads_the_home_folder_by_default(tmp_path: Path) -> None:
    """~/.docker."""
    (tmp_path / ".docker").mkdir()
    context(tmp_path / ".docker", "mine", {"Host": "unix:///m"})
    current(tmp_path / ".docker", "mine")
    found = chosen_context({"HOME": str(tmp_path)})
    assert found
    assert found.url == "unix:///m"
