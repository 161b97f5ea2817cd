"""Public clients from Debian pull from `imgload serve`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imgload.oci.digest import Digest
from tests.engine.conftest import Images, cases, unique
from tests.engine.test_registry import CERTS
from tests.engine.test_serve import HOST, serving
from tests.lab import Lab
from tests.lab.engine import Engine
from tests.lab.tools import Tools

_LAYER_BYTES = 3_000_000
Client = Callable[[Tools, Engine, str], str]
"""Pulls an image; returns its ID."""


def pull_by_skopeo(tools: Tools, _podman: Engine, name: str) -> str:
    repository, _, tag = f"docker://{name}".rpartition(":")
    listed = json.loads(tools.run("skopeo", "list-tags", "--tls-verify=false", repository))
    assert listed["Tags"] == [tag]
    options = ("--src-tls-verify=false", "--dest-oci-accept-uncompressed-layers")
    tools.run("skopeo", "--insecure-policy", "copy", *options, f"docker://{name}", "oci:pulled:v1")
    return _id_in_layout(tools, "pulled:v1")


def _id_in_layout(tools: Tools, name: str) -> str:
    config = tools.run("skopeo", "inspect", "--config", "--raw", f"oci:{name}")
    return str(Digest.of(config.encode()))


def pull_by_oras(tools: Tools, _podman: Engine, name: str) -> str:
    repository, _, tag = name.rpartition(":")
    assert tools.run("oras", "repo", "tags", "--plain-http", repository).split() == [tag]
    tools.run("oras", "cp", "--from-plain-http", "--to-oci-layout", name, "pulled:v1")
    return _id_in_layout(tools, "pulled:v1")


def pull_by_crane(tools: Tools, _podman: Engine, name: str) -> str:
    repository, _, tag = name.rpartition(":")
    assert tools.run("crane", "ls", "--insecure", repository).split() == [tag]
    tools.run("crane", "pull", "--insecure", "--format=oci", name, "pulled")
    return str(Digest.of(tools.run("crane", "config", "--insecure", name).encode()))


def pull_by_podman(_: Tools, podman: Engine, name: str) -> str:
    podman.cli("pull", "--tls-verify=false", name)
    return podman.image_id(name)


CLIENTS: dict[str, Client] = {
    "skopeo": pull_by_skopeo,
    "oras": pull_by_oras,
    "crane": pull_by_crane,
    "podman": pull_by_podman,
}


@pytest.mark.parametrize("client", cases(CLIENTS, ("skopeo",)))
def test_public_clients_pull_from_the_address_of_a_node(
    lab: Lab, images: Images, tmp_path: Path, client: Client
) -> None:
    """The image ID is the engine's, and a second pull gets no layer."""
    node, tools, tag = lab.cluster("lab-d21").nodes[0], Tools(lab.paths, tmp_path), unique("public")
    images.build(lab.docker, tag, os.urandom(_LAYER_BYTES))
    with serving("-c", "lab-d21", "--from", lab.docker.url) as server:
        match = HOST.search(node.exec("cat", f"{CERTS}/_default/hosts.toml"))
        assert match
        name = f"{match[1]}:{match[2]}/{match[3]}/{tag}"
        for turn in range(2):
            assert client(tools, lab.podman, name) == lab.docker.image_id(tag)
            served = server.next("image_id")
            assert (served["node"], served["reference"]) == (node.name, tag)
            assert (served["bytes_sent"] < _LAYER_BYTES) == bool(turn)
    if client is pull_by_podman:
        lab.podman.remove_image(name)
