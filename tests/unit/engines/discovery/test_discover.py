"""Which engines are found, over real sockets."""

import json
from pathlib import Path

import pytest

from imgload.core.errors import (
    ClusterNotFound,
    EngineFailed,
    EngineNotPermitted,
    EngineUnreachable,
    ImageAmbiguous,
    ImageNotFound,
    UsageError,
)
from imgload.engines.discovery import candidates as module
from imgload.engines.discovery.candidates import Attempt, Candidate, candidates, named_address
from imgload.engines.discovery.discover import (
    Discovery,
    discover,
    rediscover,
    with_discovery_errors,
)
from imgload.engines.endpoint import Endpoint
from tests.unit.engines.discovery.test_docker_contexts import context
from tests.unit.engines.pings import DOCKER, PODMAN, engine


def environ(docker: str, podman: str) -> dict[str, str]:
    return {"DOCKER_HOST": docker, "CONTAINER_HOST": podman, "HOME": "/nonexistent"}


def test_discover_finds_every_engine_that_answers(tmp_path: Path) -> None:
    """Docker and Podman side by side."""
    with engine(tmp_path / "d", DOCKER) as docker, engine(tmp_path / "p", PODMAN) as podman:
        found = discover(environ(docker, podman))
    assert found.require() == (Endpoint("docker", docker), Endpoint("podman", podman))
    assert found.errors == ()
    assert [e.origin for e in found.endpoints] == ["DOCKER_HOST", "CONTAINER_HOST"]


def test_rediscover_finds_the_engines_that_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that stays is the same; another address of it is no other engine."""
    url = f"unix://{tmp_path}/late"
    with engine(tmp_path / "d", DOCKER) as docker:
        for name, value in environ(docker, url).items():
            monkeypatch.setenv(name, value)
        first = discover()
        assert rediscover(first) is first
        (tmp_path / "late").symlink_to(tmp_path / "d")
        again = rediscover(first)
        assert again.endpoints == first.endpoints
        (tmp_path / "late").unlink()
        with engine(tmp_path / "late", PODMAN):
            later = rediscover(first)
        assert later.endpoints == (*first.endpoints, Endpoint("podman", url))
        assert rediscover(later) is later


def test_discover_merges_two_paths_of_one_socket(tmp_path: Path) -> None:
    """A link to Podman's socket in Docker's place; asked twice, an image would be ambiguous."""
    with engine(tmp_path / "podman.sock", PODMAN) as url:
        (tmp_path / "link").symlink_to(tmp_path / "podman.sock")
        (tmp_path / "hard").hardlink_to(tmp_path / "podman.sock")
        for other in ("link", "hard"):
            found = discover(environ(f"unix://{tmp_path}/{other}", url))
            assert [e.origin for e in found.endpoints] == ["DOCKER_HOST"]
            assert [a.same_as for a in found.attempts] == [None, found.endpoints[0]]


def test_discover_merges_engines_with_one_identity(tmp_path: Path) -> None:
    """A relay before a socket: another file, the same daemon."""
    info = {"ID": "A:B", "Name": "box", "DockerRootDir": "/var/lib/docker"}
    with engine(tmp_path / "d", DOCKER, info) as url, engine(tmp_path / "r", DOCKER, info) as relay:
        found = discover({"HOME": "/none", "CONTAINER_HOST": "unix:///none", "DOCKER_HOST": url})
        both = discover(environ(url, "unix:///none"), also=[named_address(relay, "--from", {})])
    assert len(found.endpoints) == 1
    assert [e.url for e in both.endpoints] == [relay]
    assert both.required_at(url).url == relay


@pytest.mark.parametrize("changed", ["ID", "Name", "DockerRootDir"])
def test_discover_separates_daemons_that_share_an_id(tmp_path: Path, changed: str) -> None:
    """Two of one machine may share /etc/docker/key.json, and a cloned machine everything else."""
    info = {"ID": "A:B", "Name": "box", "DockerRootDir": "/var/lib/docker"}
    other = {**info, changed: "another"}
    with engine(tmp_path / "1", DOCKER, info) as one, engine(tmp_path / "2", DOCKER, other) as two:
        found = discover(environ(one, "unix:///none"), also=[named_address(two, "--from", {})])
    assert len(found.endpoints) == 2


def test_discover_separates_podmans_by_their_stores(tmp_path: Path) -> None:
    """They have no ID; one user's is not another's."""
    one = {"host": {"hostname": "box"}, "store": {"graphRoot": "/a", "runRoot": "/b"}}
    two = {"host": {"hostname": "box"}, "store": {"graphRoot": "/c", "runRoot": "/b"}}
    for info, count in ((one, 1), (two, 2)):
        with engine(tmp_path / "1", PODMAN, one) as p, engine(tmp_path / "2", PODMAN, info) as q:
            assert len(discover(environ(p, q)).endpoints) == count
        for socket in tmp_path.iterdir():
            socket.unlink()


@pytest.mark.parametrize("info", [None, [], {"store": 1}, {"host": []}])
def test_an_engine_without_identity_counts_by_address(tmp_path: Path, info: object) -> None:
    """Whatever it answers; nothing fails for it."""
    with engine(tmp_path / "1", PODMAN, info) as one, engine(tmp_path / "2", PODMAN) as two:
        assert len(discover(environ(one, two)).endpoints) == 2


def test_discover_keeps_the_error_of_a_dead_engine(tmp_path: Path) -> None:
    """Why the other does not answer is kept."""
    with engine(tmp_path / "p", PODMAN) as podman:
        found = discover(environ(f"unix://{tmp_path}/absent.sock", podman))
    assert found.require() == (Endpoint("podman", podman),)
    [error] = found.errors
    assert isinstance(error, EngineUnreachable)
    assert [attempt.error for attempt in found.unreachable] == [error]


def test_a_variable_replaces_the_usual_sockets(tmp_path: Path) -> None:
    """Without one, the sockets that exist are candidates."""
    given = environ("unix:///a", "unix:///b")
    assert [(c.kind, c.url, c.explicit) for c in candidates(given)] == [
        ("docker", "unix:///a", True),
        ("podman", "unix:///b", True),
    ]
    (tmp_path / "podman").mkdir()
    path = tmp_path / "podman/podman.sock"
    path.touch()
    usual = {"DOCKER_HOST": "unix:///a", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/nonexistent"}
    assert (f"unix://{path}", False) in [(c.url, c.explicit) for c in candidates(usual)]


def test_overridden_sockets_are_probed_only_if_the_choice_fails(tmp_path: Path) -> None:
    """It is not used then either: the user chose; but the way out is known."""
    place = tmp_path / "home/.rd/docker.sock"
    place.parent.mkdir(parents=True)
    variables = {"HOME": str(tmp_path / "home"), "CONTAINER_HOST": "unix:///none"}
    with engine(place, DOCKER) as hidden, engine(tmp_path / "d", DOCKER) as chosen:
        good = discover({**variables, "DOCKER_HOST": chosen, "CONTAINER_HOST": chosen})
        stale = discover({**variables, "DOCKER_HOST": f"unix://{tmp_path}/gone"})
    assert [a for a in good.attempts if a.skip_reason] == []
    assert stale.endpoints == ()
    [found] = [a for a in stale.attempts if a.skip_reason and a.endpoint]
    assert found.candidate.url == hidden
    with pytest.raises(EngineUnreachable, match="answers but is not used") as hit:
        stale.require()
    assert hit.value.hint.startswith("unset DOCKER_HOST")


def test_discover_everything_includes_skipped_and_absent(tmp_path: Path) -> None:
    """What a doctor shows."""
    context(tmp_path / ".docker", "lab", {"Host": f"unix://{tmp_path}/lab.sock"})
    with engine(tmp_path / "d", DOCKER) as url, engine(tmp_path / "lab.sock", DOCKER):
        found = discover({**environ(url, "unix:///none"), "HOME": str(tmp_path)}, everything=True)
    origins = {a.candidate.origin: a.skip_reason for a in found.attempts}
    assert origins["DOCKER_HOST"] == ""
    assert origins["the Docker context 'lab'"] == "it is not the current one"
    assert f"unix://{tmp_path}/.rd/docker.sock" in [place.url for place in found.absent]
    assert [e.url for e in found.endpoints] == [url]


def test_skipped_network_addresses_are_not_probed(tmp_path: Path) -> None:
    """Another context may be a production machine."""
    context(tmp_path / ".docker", "far", {"Host": "tcp://127.0.0.1:1"})
    variables = {**environ("unix:///gone", "unix:///none"), "HOME": str(tmp_path)}
    found = discover(variables, everything=True)
    [far] = [a for a in found.attempts if "far" in a.candidate.origin]
    assert (far.endpoint, far.error) == (None, None)


def test_a_last_resort_is_probed_if_no_other_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman's own connection over the network."""
    monkeypatch.setattr(module, "_SOCKETS", ())
    folder = tmp_path / "containers"
    folder.mkdir()
    far = '{"Connection": {"Default": "far", "Connections": {"far": {"URI": "tcp://127.0.0.1:1"}}}}'
    (folder / "podman-connections.json").write_text(far)
    variables = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nonexistent"}
    variables |= {"CONTAINERS_CONF": "/nonexistent", "XDG_RUNTIME_DIR": str(tmp_path)}
    with engine(tmp_path / "d", DOCKER) as url:
        well = discover({**variables, "DOCKER_HOST": url})
    [attempt] = [a for a in well.attempts if "far" in a.candidate.origin]
    assert (attempt.endpoint, attempt.error) == (None, None)
    ill = discover({**variables, "DOCKER_HOST": "unix:///gone"})
    [attempt] = [a for a in ill.attempts if "far" in a.candidate.origin]
    assert attempt.error


def test_an_invalid_variable_is_an_error_despite_another_engine(tmp_path: Path) -> None:
    """It was set on purpose."""
    with engine(tmp_path / "p", PODMAN) as podman, pytest.raises(UsageError):
        discover(environ("not an address", podman))


@pytest.mark.parametrize("given", ["tcp://", "ssh://", "far"])
def test_an_invalid_setting_does_not_hide_another_engine(tmp_path: Path, given: str) -> None:
    """Nobody has written that address for this run."""
    folder = tmp_path / "containers"
    folder.mkdir()
    entry = {"Default": "far", "Connections": {"far": {"URI": given}}}
    (folder / "podman-connections.json").write_text(json.dumps({"Connection": entry}))
    variables = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nonexistent"}
    variables |= {"CONTAINERS_CONF": "/nonexistent", "XDG_RUNTIME_DIR": str(tmp_path)}
    with engine(tmp_path / "d", DOCKER) as url:
        found = discover({**variables, "DOCKER_HOST": url}, everything=True)
    [attempt] = [a for a in found.attempts if "far" in a.candidate.origin]
    assert [endpoint.url for endpoint in found.endpoints] == [url]
    assert "not an engine's address" in (attempt.error.message if attempt.error else "")


@pytest.mark.parametrize("name", ["DOCKER_HOST", "CONTAINER_HOST"])
def test_a_variable_with_an_invalid_port_is_a_usage_error(tmp_path: Path, name: str) -> None:
    """As one without a scheme is."""
    with engine(tmp_path / "d", DOCKER) as url, pytest.raises(UsageError, match=f"^{name}: not an"):
        discover({**environ(url, url), name: "tcp://localhost:notaport"})


def test_an_additional_address_has_precedence(tmp_path: Path) -> None:
    """Its engine is there by that address, or its own error is raised."""
    with engine(tmp_path / "d", DOCKER) as docker, engine(tmp_path / "x", DOCKER) as given:
        also = [named_address(given, "--from", {})]
        found = discover(environ(docker, "unix:///none"), also=also)
        assert found.required_at(given) == Endpoint("docker", given)
    gone = discover(environ("unix:///a", "unix:///b"), also=[named_address(given, "--from", {})])
    with pytest.raises(EngineUnreachable, match="from --from"):
        gone.required_at(given)


def silent(error: EngineUnreachable | EngineNotPermitted, *, chosen: bool) -> Attempt:
    return Attempt(Candidate("docker", "unix:///d", "test", chosen=chosen), error=error)


def test_attempt_matters_if_chosen_or_not_permitted() -> None:
    """A choice that is dead, a socket that may not be opened; not a usual place that is dead."""
    gone, denied = EngineUnreachable("gone"), EngineNotPermitted("denied")
    assert silent(gone, chosen=True).is_worth_mentioning
    assert silent(denied, chosen=False).is_worth_mentioning
    assert not silent(gone, chosen=False).is_worth_mentioning
    assert not Attempt(Candidate("docker", "", "test", chosen=True)).is_worth_mentioning


def test_explained_extends_a_not_found_error() -> None:
    """The image or cluster may be there; both hints are given, the engine's first."""
    attempt = silent(EngineUnreachable("docker is gone", hint="start it"), chosen=True)
    with pytest.raises(ImageNotFound) as caught, with_discovery_errors([attempt]):
        raise ImageNotFound("no image", hint="build it", image="app")
    assert caught.value.message == "no image\n  docker is gone"
    assert (caught.value.hint, caught.value.image) == ("start it; or build it", "app")
    with pytest.raises(ClusterNotFound, match=r"^no cluster$"), with_discovery_errors([]):
        raise ClusterNotFound("no cluster")
    with pytest.raises(ImageAmbiguous, match=r"^two$"), with_discovery_errors([attempt]):
        raise ImageAmbiguous("two")


def test_answered_raises_for_an_attempt_without_engine() -> None:
    """`answered` says so, and is no engine."""
    with pytest.raises(EngineUnreachable, match="was not tried"):
        _ = Attempt(Candidate("docker", "unix:///d", "test")).resolved_endpoint
    with pytest.raises(EngineFailed, match="odd"):
        _ = Attempt(Candidate("docker", "", "test"), error=EngineFailed("odd")).resolved_endpoint
    assert Discovery(()).endpoints == ()
