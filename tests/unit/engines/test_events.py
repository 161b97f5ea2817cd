"""What the engines tell of their images; each line was recorded on a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from imgload.engines.base import Engine, ImageEvent
from imgload.engines.docker import Docker
from imgload.engines.podman import Podman
from imgload.oci.digest import Digest
from tests.unit.engines.test_http import document, served

ID = Digest.of(b"image")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def told(action: str, actor: str, name: str, kind: str = "image") -> dict[str, Any]:
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": {"name": name}},
    }


def heard(folder: Path, engine: type[Engine], *events: object) -> list[ImageEvent]:
    """Return what an engine hears before its stream ends."""
    lines = [json.dumps(event).encode() + b"\n" for event in events]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
    with served(
        folder, lambda connection, _: connection.sendall(CHUNKED + chunks + END)
    ) as endpoint:
        opened = engine(attrs.evolve(endpoint, kind="docker", version="1.41"))  # type: ignore[call-arg]
        return [each for each in opened.image_events(0) if isinstance(each, ImageEvent)]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (told("tag", str(ID), "app:dev"), ImageEvent("app:dev", ID)),
        (told("load", str(ID), str(ID)), ImageEvent("", ID)),
        (told("pull", "app:dev", "app"), ImageEvent("app:dev")),
        ({"Actor": {}}, ImageEvent()),
        (["?"], ImageEvent()),
    ],
)
def test_docker_events_are_parsed(tmp_path: Path, event: object, expected: ImageEvent) -> None:
    """A tag has both; a load only the ID; a pull's actor is the name with its tag."""
    assert heard(tmp_path, Docker, event) == [expected]


def test_image_events_omit_temporary_tags(tmp_path: Path) -> None:
    """A watch of everything would load it, and find it gone."""
    ours = "127.0.0.1:36039/imgload/" + "0" * 32 + ":" + "1" * 16
    events = (told("tag", str(ID), ours), told("tag", str(ID), "app:dev"))
    assert heard(tmp_path, Docker, *events) == [ImageEvent("app:dev", ID)]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (told("build", "", ID.hex), ImageEvent("", ID)),
        (told("tag", ID.hex, "app:dev"), ImageEvent("localhost/app:dev", ID)),
        (told("tag", ID.hex, "ghcr.io/me/app"), ImageEvent("ghcr.io/me/app:latest", ID)),
        (told("tag", ID.hex, "<none>"), ImageEvent("", ID)),
        (told("loadfromarchive", "", "app.tar"), ImageEvent()),
        (told("loadfromarchive", ID.hex, "app.tar"), ImageEvent("", ID)),
        (told("pull", "", "ghcr.io/me/app:1"), ImageEvent("ghcr.io/me/app:1")),
        (told("commit", "c" * 64, "angry_tesla", "container"), ImageEvent()),
    ],
)
def test_podman_events_are_parsed(tmp_path: Path, event: object, expected: ImageEvent) -> None:
    """A build has its image ID for a name, and a load its file's."""
    assert heard(tmp_path, Podman, event) == [expected]


def test_names_maps_names_to_engine_ids(tmp_path: Path) -> None:
    """An image without names has none here."""
    listed = [{"Id": ID.hex, "RepoTags": ["a:1", "b:2"]}, {"Id": str(ID), "RepoTags": None}]
    with served(tmp_path, lambda c, _: c.sendall(document(listed))) as endpoint:
        assert Docker(endpoint).names() == {"a:1": ID, "b:2": ID}
