"""What a server answers that is no engine, or not the one that its API describes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgload.clusters.cluster import find_clusters
from imgload.core.errors import EngineFailed, ImgloadError
from imgload.engines.base import Engine, ImageEvent
from imgload.engines.discovery.discover import connect
from imgload.engines.docker import Docker
from imgload.engines.podman import Podman
from imgload.oci.digest import Digest
from tests.unit.engines.test_http import document, served

ID = Digest.of(b"image")
LIST = Digest.of(b"list")
AMD64 = {"os": "linux", "architecture": "amd64"}
LABELS = {"io.x-k8s.kind.cluster": "kind", "io.x-k8s.kind.role": "worker"}
NODE = {"Id": "c1", "Names": ["/kind-worker"], "State": "running", "Labels": LABELS}
IMAGE = {
    "Id": str(ID),
    "RepoTags": ["app:dev"],
    "Os": "linux",
    "Architecture": "amd64",
    "RootFS": {"Layers": [str(ID)]},
    "Size": 1,
    "GraphDriver": {"Name": "stargz"},
    "Manifests": [
        {"Kind": "image", "ID": str(ID), "Available": True, "ImageData": {"Platform": AMD64}}
    ],
}
STATE = {"Id": "c1", "Name": "kind-worker", "State": {"Status": "running"}, "Config": NODE}
ACTOR = {"ID": str(ID), "Attributes": {"name": "app:dev"}}
TAGGED = {"Type": "image", "Action": "tag", "Actor": ACTOR, "timeNano": 5}
DOCKER_INFO = {
    "ID": "x",
    "Driver": "overlayfs",
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "SecurityOptions": ["name=rootless"],
    "OSType": "linux",
    "Architecture": "x86_64",
}
PODMAN_INFO = {"host": {"hostname": "x", "os": "linux"}, "store": {"graphRoot": "/var"}}
LISTED = [{"Id": LIST.hex, "RepoTags": ["docker.io/library/list:1"], "Digest": str(ID)}]
INDEX = {"manifests": [{"digest": str(ID), "platform": AMD64}]}
Use = Callable[[Engine], object]
USES: dict[str, tuple[str, object, Use]] = {
    "find": ("/images/app:dev/json", IMAGE, lambda engine: engine.find("app:dev")),
    "names": ("/images/json", [IMAGE], lambda engine: engine.names()),
    "sizes": ("/history", [{"Size": 1}, {"Size": 0}], lambda engine: engine.layer_sizes(ID)),
    "clusters": ("/containers/json", [NODE], lambda engine: find_clusters([engine])),
    "container": ("/containers/c1/json", STATE, lambda engine: engine.container("c1")),
    "identity": ("/info", DOCKER_INFO, lambda engine: engine.identity()),
    "about": ("/info", DOCKER_INFO, lambda engine: engine.description()),
    "about Podman": ("/info", PODMAN_INFO, lambda engine: engine.description()),
    "look up": ("none/json", {}, lambda engine: engine.look_up("127.0.0.1:1/x")),
    "exec": ("/exec", {"Id": "e1"}, lambda engine: engine.exec("c1", ["true"])),
    "events": ("/events", TAGGED, lambda engine: list(engine.image_events(None))),
    "lists": ("/images/json", LISTED, lambda engine: engine.find("list:1")),
    "index": (f"/manifests/{LIST.hex}/json", INDEX, lambda engine: engine.find("list:1")),
}
OTHERS = {"/images/json": LISTED, f"/manifests/{LIST.hex}/json": INDEX, "/exists": {}}
"""What is answered beside what is tested."""
ENGINES = {"docker": Docker, "podman": Podman}
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("sha256:x"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)


@st.composite
def wrong(draw: st.DrawFn, good: Any) -> Any:
    """Return a document in which one part is another, or is not there."""
    if not isinstance(good, (dict, list)) or not good or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    changed = dict(enumerate(good)) if isinstance(good, list) else dict(good)
    key = draw(st.sampled_from(list(changed)))
    changed[key] = draw(wrong(changed[key]))
    if draw(st.booleans()):
        del changed[key]
    return list(changed.values()) if isinstance(good, list) else changed


@contextmanager
def answered(folder: Path, kind: str, answers: Mapping[str, Any]) -> Iterator[Engine]:
    """Yield an engine whose requests are answered by the end of their path; others with 404."""

    def reply(connection: socket.socket, head: bytes) -> None:
        path = head.split()[1].decode().partition("?")[0]
        fitting = [answer for end, answer in answers.items() if path.endswith(end)]
        status = "200 OK" if fitting else "404 Not Found"
        connection.sendall(document(fitting[0] if fitting else {}, status))

    with served(folder, reply) as endpoint:
        version = {"docker": "1.49", "podman": "4.3.1"}[kind]
        yield connect(type(endpoint)(kind, endpoint.url, version=version))  # type: ignore[arg-type]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ENGINES)
@given(data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_answered_only_imgloads_errors_are_raised(
    tmp_path: Path, kind: str, use: str, data: st.DataObject
) -> None:
    end, good, call = USES[use]
    answer = data.draw(wrong(good))
    (tmp_path / "engine.sock").unlink(missing_ok=True)
    with answered(tmp_path, kind, {end: answer, **OTHERS}) as engine, suppress(ImgloadError):
        call(engine)


WRONG: list[tuple[str, str, object]] = [
    ("find", "docker", IMAGE | {"Id": "none"}),
    ("find", "podman", [IMAGE]),
    ("names", "docker", [{"RepoTags": [5]}]),
    ("sizes", "podman", [{"Size": "x"}]),
    ("clusters", "docker", [NODE | {"Labels": ["io.x-k8s.kind.cluster"]}]),
    ("clusters", "podman", [NODE | {"Labels": {**LABELS, "io.x-k8s.kind.cluster": 5}}]),
    ("clusters", "docker", [NODE | {"Names": [5]}]),
    ("container", "docker", {"Id": "c1"}),
    ("about", "docker", {"DriverStatus": [5]}),
    ("exec", "podman", {}),
]


@pytest.mark.parametrize(("use", "kind", "answer"), WRONG)
def test_an_answer_that_violates_the_api_is_engine_failed(
    tmp_path: Path, use: str, kind: str, answer: object
) -> None:
    """And its error names the engine."""
    end, _, call = USES[use]
    with answered(tmp_path, kind, {end: answer}) as engine:
        with pytest.raises(EngineFailed) as caught:
            call(engine)
        assert str(engine.endpoint) in caught.value.message


@pytest.mark.parametrize("kind", ENGINES)
def test_containers_accepts_null(tmp_path: Path, kind: str) -> None:
    """So Go writes a list that was never made."""
    with answered(tmp_path, kind, {"/containers/json": None}) as engine:
        assert engine.containers("x") == []


def test_a_redirect_is_an_error(tmp_path: Path) -> None:
    """No engine redirects; whatever does is none, and its document is not the answer."""

    def reply(connection: socket.socket, _: bytes) -> None:
        connection.sendall(document([], "301 Moved Permanently"))

    with served(tmp_path, reply) as endpoint, pytest.raises(EngineFailed):
        connect(endpoint).names()


BAD_EVENTS = [
    b"no JSON",
    *(json.dumps(TAGGED | {"Actor": actor}).encode() for actor in (None, {"ID": ["x"]})),
    *(
        json.dumps(TAGGED | {"Actor": {"ID": actor_id, "Attributes": {"name": name}}}).encode()
        for actor_id, name in ((["x"], "app"), (str(ID), ["x"]), (str(ID), 5))
    ),
]


@pytest.mark.parametrize("bad", BAD_EVENTS)
def test_after_a_bad_event_the_good_one_is_reported(tmp_path: Path, bad: bytes) -> None:
    """The bad one is an event of which nothing is known: the names are compared."""
    body = b"\n".join([bad, json.dumps(TAGGED).encode(), b""])
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with served(tmp_path, lambda c, _: c.sendall(head + body)) as endpoint:
        events = [e for e in connect(endpoint).image_events(None) if isinstance(e, ImageEvent)]
    assert events == [ImageEvent(), ImageEvent("app:dev", ID, at=5)]
