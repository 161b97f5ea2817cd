"""The engine of Skaffold's Docker client, among the discovered engines."""

import attrs
import pytest

from imgload.engines.discovery.candidates import Attempt, Candidate
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
def test_client_uses_the_chosen_engine(endpoint: Endpoint, origin: str) -> None:
    """A variable or a context selects it; Podman has the same API."""
    discovery = Discovery((attempt(endpoint, origin, chosen=True), attempt(DOCKER)))
    assert Client.of(discovery) == Client(endpoint.url, origin, endpoint)


def test_client_uses_the_default_socket_without_a_choice() -> None:
    """It ignores rootless Docker, which imgload also discovers, and skipped candidates."""
    discovery = Discovery((attempt(ROOTLESS), attempt(DOCKER)))
    assert Client.of(discovery) == Client(DEFAULT_SOCKET, "the default", DOCKER)
    silent = Client(DEFAULT_SOCKET, "the default")
    passed = attrs.evolve(attempt(DOCKER, chosen=True), skip_reason="it is not the current one")
    for attempts in ((), (attempt(ROOTLESS),), (passed,)):
        assert Client.of(Discovery(attempts)) == silent


def test_client_returns_the_engines_own_endpoint_for_a_second_socket() -> None:
    again = attrs.evolve(attempt(DOCKER, "DOCKER_HOST", chosen=True), same_as=ROOTLESS)
    assert Client.of(Discovery((attempt(ROOTLESS), again))).endpoint == ROOTLESS


def test_client_keeps_a_chosen_address_that_does_not_answer() -> None:
    """Skaffold fails there."""
    dead = attrs.evolve(attempt(PODMAN, "DOCKER_HOST", chosen=True), endpoint=None)
    discovery = Discovery((dead, attempt(DOCKER)))
    assert Client.of(discovery) == Client(PODMAN.url, "DOCKER_HOST")
