"""Podman connections, as both of Podman's files have them, and what else may be in these."""

import json
from pathlib import Path

import pytest

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.candidates import (
    Candidate,
    chosen_connection,
    default_connection,
    read_connections,
)
from tests.unit.bounds import within

MACHINE = "ssh://core@127.0.0.1:52837/run/user/501/podman/podman.sock"


class Settings:
    """Podman's two files, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.conf = folder / "containers.conf"
        self.listed = folder / "podman-connections.json"
        self.environ = {
            "CONTAINERS_CONF": str(self.conf),
            "PODMAN_CONNECTIONS_CONF": str(self.listed),
            "HOME": str(folder),
        }

    def list(self, default: object = "", **connections: object) -> None:
        document = {"Connection": {"Default": default, "Connections": connections}, "Farm": {}}
        self.listed.write_text(json.dumps(document))

    def default(self) -> Candidate | None:
        return default_connection(self.environ)

    def chosen(self, name: str) -> Candidate:
        found = chosen_connection({**self.environ, "CONTAINER_CONNECTION": name})
        assert found
        return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path)


def test_connections_are_read_from_podman_5s_file(settings: Settings) -> None:
    """With the key, and whether it is a machine of Podman's."""
    settings.list(
        "local",
        local={"URI": "unix:///run/p.sock"},
        machine={"URI": MACHINE, "Identity": "/k/machine", "IsMachine": True},
    )
    local, machine = settings.default(), settings.chosen("machine")
    assert local
    assert (local.url, local.chosen, local.last_resort) == ("unix:///run/p.sock", False, False)
    assert (machine.url, machine.identity, machine.machine) == (MACHINE, "/k/machine", True)
    assert (machine.chosen, machine.explicit, machine.undo) == (
        True,
        True,
        "unset CONTAINER_CONNECTION",
    )


def test_connections_are_read_from_containers_conf(settings: Settings) -> None:
    """In TOML, with other words for the same."""
    settings.conf.write_text(
        '[engine]\nactive_service = "far"\n[engine.service_destinations.far]\n'
        'uri = "ssh://me@far/run/podman/podman.sock"\nidentity = "/k"\nis_machine = false\n'
    )
    found = settings.default()
    assert found
    assert (found.url, found.identity, found.machine, found.last_resort) == (
        "ssh://me@far/run/podman/podman.sock",
        "/k",
        False,
        True,
    )


def test_podman_5s_file_has_precedence(settings: Settings) -> None:
    """For the default, and for a name that both have."""
    settings.conf.write_text(
        '[engine]\nactive_service = "old"\n[engine.service_destinations]\n'
        'old = {uri = "unix:///old"}\nboth = {uri = "unix:///old/both"}\n'
    )
    found = settings.default()
    assert found
    assert found.url == "unix:///old"
    settings.list("both", both={"URI": "unix:///new/both"})
    found = settings.default()
    assert found
    assert found.url == "unix:///new/both"
    assert {c.url for c in read_connections(settings.environ)[1].values()} == {
        "unix:///old",
        "unix:///new/both",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[engine]\n",
        "# active_service = 'x'\n[engine]\nservice_timeout = 5\n",
        "[engine]\nservice_destinations = 5\n",
        "[engine]\nservice_destinations = {}\nactive_service = 'gone'\n",
        "[engine.service_destinations]\nx = 'unix:///x'\ny = {}\nz = {uri = 1}\n",
        "engine = 'service'\n",
        "[engine]\nactive_service = ['x']\n",
    ],
)
def test_containers_conf_may_lack_connections(settings: Settings, text: str) -> None:
    """A plain [engine] above all, on which podman-py crashes."""
    settings.conf.write_text(text)
    assert settings.default() is None
    assert list(read_connections(settings.environ)[1].values()) == []


@pytest.mark.parametrize(
    "document",
    [
        "null",
        "[]",
        "{}",
        '{"Connection": []}',
        '{"Connection": {"Connections": []}}',
        '{"Connection": {"Connections": {"x": null, "y": {"URI": 5}, "z": []}, "Default": 7}}',
    ],
)
def test_connections_of_wrong_types_are_ignored(settings: Settings, document: str) -> None:
    """Nothing that is no text is an address."""
    settings.listed.write_text(document)
    assert read_connections(settings.environ) == ("", {})


@pytest.mark.parametrize("text", ["[engine\nservice", "service = ", "a.b = 1\na = 'service'"])
def test_containers_conf_of_invalid_toml_is_an_error(settings: Settings, text: str) -> None:
    """With the file's name; a choice by name says it, too."""
    settings.conf.write_text(text)
    with pytest.raises(EngineUnreachable, match=r"containers\.conf cannot be used"):
        settings.default()
    assert isinstance(settings.chosen("x").problem, EngineUnreachable)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"Connection": {]'])
def test_connections_of_invalid_json_are_an_error(settings: Settings, text: str) -> None:
    """However deep."""
    settings.listed.write_text(text)
    with within(2), pytest.raises(EngineUnreachable, match=r"connections\.json cannot be used"):
        settings.default()


def test_connections_are_limited_in_number(settings: Settings) -> None:
    """Somebody's mistake should not be thousands of questions."""
    settings.list("", **{f"c{i}": {"URI": f"unix:///{i}"} for i in range(5000)})
    assert len(list(read_connections(settings.environ)[1].values())) <= 100


@pytest.mark.parametrize("name", ["gone", "../x", "\udcff"])
def test_a_missing_connection_is_a_problem(settings: Settings, name: str) -> None:
    """With those that are."""
    settings.list("", one={"URI": "unix:///1"}, two={"URI": "unix:///2"})
    found = settings.chosen(name)
    assert (found.url, found.chosen) == ("", True)
    assert found.problem
    assert "available: one, two" in found.problem.message
    assert "podman system connection list" in found.problem.hint


def test_chosen_connection_is_none_without_a_name(settings: Settings) -> None:
    """An empty variable is none."""
    settings.list("one", one={"URI": "unix:///1"})
    assert chosen_connection(settings.environ) is None
    assert chosen_connection({**settings.environ, "CONTAINER_CONNECTION": ""}) is None


def test_connections_are_read_from_the_users_files_by_default(tmp_path: Path) -> None:
    """In XDG_CONFIG_HOME or ~/.config; the last file says most, as containers.conf.d's."""
    own = tmp_path / ".config/containers"
    (own / "containers.conf.d").mkdir(parents=True)
    template = '[engine]\nactive_service = "x"\nservice_destinations = {{x = {{uri = "{0}"}}}}\n'
    (own / "containers.conf").write_text(template.format("unix:///1"))
    for variables in ({"HOME": str(tmp_path)}, {"XDG_CONFIG_HOME": str(tmp_path / ".config")}):
        found = default_connection(variables)
        assert found
        assert found.url == "unix:///1"
    (own / "containers.conf.d/50-more.conf").write_text(template.format("unix:///2"))
    found = default_connection({"HOME": str(tmp_path)})
    assert found
    assert found.url == "unix:///2"
    (tmp_path / "last.conf").write_text(template.format("unix:///3"))
    last = {"CONTAINERS_CONF_OVERRIDE": str(tmp_path / "last.conf")}
    found = default_connection({"HOME": str(tmp_path), **last})
    assert found
    assert found.url == "unix:///3"
