"""The engine that Skaffold's Docker client talks to, out of all that were found."""

import attrs
import pytest

from imgload.engines.discovery.attempt import Attempt, Candidate
from imgload.engines.discovery.discover import Discovery
from imgload.engines.endpoint import Endpoint
from imgload.tools.skaffold.docker_client import DEFAULT_SOCKET, Client

PODMAN = Endpoint("podman", "unix:///run/podman.sock")
DOCKER = Endpoint("docker", DEFAULT_SOCKET)
ROOTLESS = Endpoint("docker", "unix:///run/user/1/docker.sock")


def attempt(endpoint: Endpoint, origin: str = "Docker", *, chosen: bool = False) -> Attempt:
    return Attempt(Candidate("docker", endpoint.url, origin, chosen=chosen), endpoint)


@pytest.mark.parametrize("endpoint", [PODMAN, DOCKER, ROOTLESS])
@pytest.mark.parametrize("origin", ["DOCKER_HOST", "the current Docker context 'x'"])
def test_what_was_chosen_is_it_whichever_engine_that_is(endpoint: Endpoint, origin: str) -> None:
    """By a variable or by a context; Podman speaks the same API."""
    found = Discovery((attempt(endpoint, origin, chosen=True), attempt(DOCKER)))
    assert Client.of(found) == Client(endpoint.url, origin, endpoint)


def test_else_it_is_the_default_socket() -> None:
    """And neither a rootless Docker's, which imgload finds as well, nor one that is passed over."""
    found = Discovery((attempt(ROOTLESS), attempt(DOCKER)))
    assert Client.of(found) == Client(DEFAULT_SOCKET, "the default", DOCKER)
    silent = Client(DEFAULT_SOCKET, "the default")
    passed = attrs.evolve(attempt(DOCKER, chosen=True), passed_over="it is not the current one")
    for attempts in ((), (attempt(ROOTLESS),), (passed,)):
        assert Client.of(Discovery(attempts)) == silent


def test_an_engine_that_was_found_by_another_way_is_that_one() -> None:
    """One engine has one endpoint, however many sockets lead to it."""
    again = attrs.evolve(attempt(DOCKER, "DOCKER_HOST", chosen=True), same_as=ROOTLESS)
    assert Client.of(Discovery((attempt(ROOTLESS), again))).endpoint == ROOTLESS


def test_an_address_where_nobody_answers_is_still_the_one() -> None:
    """Skaffold fails there; it looks no further."""
    dead = attrs.evolve(attempt(PODMAN, "DOCKER_HOST", chosen=True), endpoint=None)
    found = Discovery((dead, attempt(DOCKER)))
    assert Client.of(found) == Client(PODMAN.url, "DOCKER_HOST")
