"""Answers of Docker on a node: recorded, damaged, hostile and large ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.docker import (
    _error_of,
    content_of,
    parse_images,
    parse_info,
    parse_version,
    platform_of,
    records_of,
)
from imgload.core.errors import ImportFailed, NodeUnusable
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import dig
from tests.unit.bounds import within
from tests.unit.recordings import DOCKER_VERSIONS, recorded_docker

ID, LAYER, PINNED = (f"sha256:{letter * 64}" for letter in "abc")
IMAGE = {
    "id": ID,
    "tags": ["app:v1"],
    "digests": [],
    "rootfs": {"Type": "layers", "Layers": [LAYER]},
    "created": "2026-11-30T07:31:49.937535892Z",
}
INFO = {"DockerRootDir": "/var/lib/docker", "Driver": "overlay2"}


def printed(*values: Any) -> Output:
    return Output(0, "\n".join(map(json.dumps, values)).encode())


def names_of(*values: Any) -> set[str]:
    """Return all names of the images in an answer, without their IDs."""
    return {name for image in parse_images(printed(*values)) for name in image.names}


@pytest.mark.parametrize("version", DOCKER_VERSIONS)
def test_recorded_images_have_names_and_layers(version: str) -> None:
    """Docker shows short names; an image with two names has both."""
    base, app = sorted(
        parse_images(recorded_docker(version, "images")), key=lambda image: len(image.diff_ids)
    )
    assert set(base.names) == {"docker.io/library/rec-base:v1"}
    assert set(app.names) == {
        "docker.io/library/rec-app:v1",
        "registry.example:5000/team/app:v1",
    }
    assert app.diff_ids[:1] == base.diff_ids
    content = content_of([base, app])
    assert content.blobs == {base.image_id, app.image_id, *app.diff_ids}
    assert content.configs_under(app.image_id) == {app.image_id}
    assert records_of([base, app])[str(app.image_id)] == app.image_id


@pytest.mark.parametrize("version", DOCKER_VERSIONS)
def test_recorded_info_has_folder_driver_version_and_platform(version: str) -> None:
    info = parse_info(recorded_docker(version, "info"))
    assert (dig(info, "DockerRootDir"), dig(info, "Driver")) == ("/var/lib/docker", "overlay2")
    assert ".".join(map(str, parse_version(dig(info, "ServerVersion")))) == version
    assert str(platform_of(info)) == "linux/amd64"


@pytest.mark.parametrize("version", DOCKER_VERSIONS)
@pytest.mark.parametrize("status", [0, 1])
def test_a_recorded_docker_that_is_down_is_reported(version: str, status: int) -> None:
    """The client of Docker 20.10 exits with 0, that of 28 with 1."""
    down = Output(status, recorded_docker(version, "info-down").stdout)
    with pytest.raises(NodeUnusable, match="Docker does not answer: Cannot connect"):
        parse_info(down)
    listed = Output(1, recorded_docker(version, "images-down").stdout)
    with pytest.raises(NodeUnusable, match="Docker does not list its images: Cannot connect"):
        parse_images(listed)


def test_a_recorded_containerd_image_store_is_not_taken_for_graphdrivers() -> None:
    with pytest.raises(NodeUnusable, match="image store"):
        parse_info(recorded_docker("28.5", "info-containerd-store"))


@pytest.mark.parametrize("version", DOCKER_VERSIONS)
def test_a_recorded_error_of_a_load_is_read(version: str) -> None:
    """It comes after status 200."""
    answer = recorded_docker(version, "load-deep").text
    assert answer.startswith("HTTP/1.1 200 OK")
    assert _error_of(answer) == "max depth exceeded"


@pytest.mark.parametrize(
    "answer",
    ["", "HTTP/1.1 200 OK\r\n\r\n", '{"error":"cut o', '{"error":5}', '{"error":"\\x"}'],
)
def test_an_answer_without_a_readable_error_has_none(answer: str) -> None:
    assert _error_of(answer) == ""


def test_an_error_that_does_not_suit_a_terminal_is_escaped() -> None:
    error = ImportFailed(_error_of(r'{"error":"a\u001b[2J\ud800b"}'))
    assert error.message == "a�[2J�b"


@pytest.mark.parametrize("line", ["", "[]", "5", "{", '{"id": "sha256:a', "{}", "{" * 5000])
def test_a_damaged_line_is_skipped(line: str) -> None:
    damaged = Output(0, line.encode() + b"\n\xff\n{\xff}\n" + printed(IMAGE).stdout)
    assert [str(image.image_id) for image in parse_images(damaged)] == [ID]


@pytest.mark.parametrize("value", [None, 5, True, "sha256:a", [], {}])
@pytest.mark.parametrize("key", IMAGE)
def test_a_value_of_another_type_does_no_harm(key: str, value: object) -> None:
    """The image has no name or is skipped; other images are listed."""
    other = {**IMAGE, "id": PINNED, "tags": ["other:v1"]}
    assert names_of({**IMAGE, key: value}, other) <= {
        "docker.io/library/app:v1",
        "docker.io/library/other:v1",
    }
    assert "docker.io/library/other:v1" in names_of({**IMAGE, key: value}, other)


@pytest.mark.parametrize(
    "name",
    [5, None, "", "<none>:<none>", "a\x1b[2J:v1", "a\nb:v1", "-v:v1", "../a:v1", "a" * 5000],
)
def test_a_name_that_kubernetes_refuses_is_skipped(name: object) -> None:
    assert names_of({**IMAGE, "tags": [name, "app:v1"]}) == {"docker.io/library/app:v1"}


@pytest.mark.parametrize("layer", [5, None, "", "sha256:a", "../../etc"])
def test_an_image_with_an_invalid_layer_is_skipped(layer: object) -> None:
    assert parse_images(printed({**IMAGE, "rootfs": {"Layers": [LAYER, layer]}})) == []


def test_a_name_with_a_digest_refers_to_it() -> None:
    """As of an image that the node has pulled."""
    [image] = parse_images(printed({**IMAGE, "digests": [f"ghcr.io/me/app@{PINNED}"]}))
    assert {name: str(target) for name, target in image.names.items()} == {
        "docker.io/library/app:v1": ID,
        f"ghcr.io/me/app@{PINNED}": PINNED,
    }
    assert content_of([image]).configs_under(Digest.parse(PINNED)) == {Digest.parse(ID)}


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"5", b"{", b"\xff", b"{}", b'{"ServerErrors": 5}', b'{"ServerErrors": ["down"]}'],
)
def test_info_without_a_folder_is_not_an_answer(answer: bytes) -> None:
    with pytest.raises(NodeUnusable, match="Docker does not answer: "):
        parse_info(Output(0, answer))


def test_errors_in_info_are_escaped_and_bounded() -> None:
    errors = printed({**INFO, "ServerErrors": ["\x1b[2J" * 10_000] * 10})
    with pytest.raises(NodeUnusable) as caught:
        parse_info(errors)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 10_000


@pytest.mark.parametrize("value", [None, 5, [], {}, [[]], [5]])
def test_info_may_have_values_of_other_types(value: object) -> None:
    info = parse_info(printed({**INFO, "DriverStatus": value, "OSType": value}))
    assert platform_of(info) == platform_of({})


@pytest.mark.parametrize("text", ["", "v1", "28", "x.y", "9" * 5000])
def test_an_unknown_version_is_zero(text: str) -> None:
    assert parse_version(text) == (0, 0)


def test_ten_thousand_images_are_parsed_in_seconds() -> None:
    """And one with ten thousand names, and one with as many layers."""
    layers = [str(Digest.of(b"%d" % n)) for n in range(10_000)]
    many = [{**IMAGE, "id": layer, "tags": [f"app:v{n}"]} for n, layer in enumerate(layers)]
    names = {**IMAGE, "tags": [f"app:w{n}" for n in range(10_000)]}
    deep = {**IMAGE, "rootfs": {"Layers": layers}, "tags": ["deep:v1"]}
    with within(10):
        images = parse_images(printed(*many, names, deep))
        assert len(content_of(images).blobs) == 10_000 + 2
        assert len(records_of(images)) == 30_000 + 2
        assert len(chain_ids(images[-1].diff_ids)) == 10_000
