"""Images that an engine cannot save in its usual format, alone and with others."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import EngineFailed, ImageIncomplete, NotAnImage
from imgload.loader.events import Event, Note
from imgload.sources.base import TransportOption
from tests.engine.conftest import cri_id, forget, unique
from tests.engine.kinds import Made, layer, new, oci
from tests.lab import Lab
from tests.lab.daemon import Daemon
from tests.lab.docker import NewerDocker
from tests.lab.engine import Engine, ping
from tests.unit.archives import artifact, encode, layout, pack

CLUSTER = "lab-d21"
Give = Callable[[Engine, Made], Made]


class DockersLayers(Made):
    """An OCI manifest with Docker's media type for layers, as Skopeo copies from Docker 28."""

    @property
    def manifest(self) -> bytes:
        value = json.loads(super().manifest)
        for descriptor in value["layers"]:
            descriptor["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        return encode(value)


class Undated(Made):
    """An image whose history has no dates, which are optional (OCI image spec, config.md)."""

    @property
    def config(self) -> bytes:
        value = json.loads(super().config)
        return encode({**value, "history": [{"created_by": "x"} for _ in self.layers]})


def sparse_layer(folder: Path) -> bytes:
    """Return a layer with a sparse file (GNU tar, "PAX Format, Versions 1.0")."""
    with (folder / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(secrets.token_bytes(64))
        file.truncate(2 << 20)
    command = ("tar", "--sparse", "--format=posix", "-C", str(folder), "-c", "sparse")
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture
def give(lab: Lab) -> Iterator[Give]:
    """Return a function that loads an image into an engine."""
    given: list[tuple[Engine, Made]] = []

    def put(engine: Engine, made: Made) -> Made:
        form = oci if isinstance(made, DockersLayers) else new
        loaded = engine.cli("load", stdin=pack(form([made]))).split()[-1]
        engine.cli("tag", loaded, made.name)
        given.append((engine, made))
        return made

    yield put
    for engine, made in given:
        engine.remove_image(made.image_id if engine.name.startswith("podman") else made.name)
    forget(lab.cluster(CLUSTER).nodes[0], *(f"docker.io/library/{made.name}" for _, made in given))


def load(lab: Lab, engine: Engine, *images: Made, transport: TransportOption = "auto") -> list[str]:
    """Load images, assert that CRI has them, and return the notes."""
    events: list[Event] = []
    names = [made.name for made in images]
    options = {"cluster": CLUSTER, "source": engine.url, "on_event": events.append}
    imgload.load(names, transport=transport, **options)  # type: ignore[arg-type]
    node = lab.cluster(CLUSTER).nodes[0]
    image_ids = [cri_id(node, f"docker.io/library/{name}") for name in names]
    assert image_ids == [made.image_id for made in images]
    return [event.text for event in events if isinstance(event, Note)]


def test_an_image_that_docker_cannot_save_is_pushed(lab: Lab, give: Give) -> None:
    """With a note; with the archive transport, the load fails with the engine's error."""
    made = give(lab.docker, Made(unique(), ()))
    with pytest.raises(EngineFailed, match="saving"):
        load(lab, lab.docker, made, transport="archive")
    [note] = load(lab, lab.docker, made)
    assert "since saving failed" in note


@pytest.mark.parametrize("transport", ["auto", "archive"])
@pytest.mark.parametrize("kind", ["zstd", "Docker's media type"])
def test_podman_saves_an_oci_archive_if_a_docker_archive_fails(
    lab: Lab, give: Give, kind: str, transport: TransportOption
) -> None:
    """Without a note."""
    zstd = kind == "zstd"
    image = (
        Made(unique(), compression="zstd") if zstd else DockersLayers(unique(), compression="gzip")
    )
    made = give(lab.podman, image)
    assert load(lab, lab.podman, made, transport=transport) == []


def test_an_oci_manifest_that_podman_58_cannot_export_is_refused(
    lab: Lab, give: Give, tmp_path: Path
) -> None:
    """Without a push, which fails as well; as in the hint, its archive can be loaded."""
    podman = lab.engine("podman58")
    made = give(podman, DockersLayers(unique(), compression="gzip"))
    with pytest.raises(EngineFailed) as caught:
        load(lab, podman, made)
    assert caught.value.final
    assert "imgload load IMAGE --from FILE" in caught.value.hint
    archive = tmp_path / "app.tar"
    archive.write_bytes(pack(oci([made])))
    assert imgload.load(made.name, cluster=CLUSTER, source=archive).ok


@pytest.mark.parametrize("transport", ["auto", "archive"])
def test_images_that_podman_cannot_save_together_are_sent_one_by_one(
    lab: Lab, give: Give, transport: TransportOption
) -> None:
    """Podman's OCI archives have only one image each; a note says so."""
    several = [
        give(lab.podman, Made(unique())),
        give(lab.podman, DockersLayers(unique(), compression="gzip")),
        give(lab.podman, Made(unique(), compression="zstd")),
    ]
    notes = load(lab, lab.podman, *several, transport=transport)
    assert "one by one" in notes[-1]


def test_an_image_that_cannot_be_saved_in_part_is_pushed(lab: Lab, give: Give) -> None:
    """The node has the base layer, so that a save without that layer is tried first."""
    base = layer("base.txt")
    load(lab, lab.podman, give(lab.podman, Made(unique(), (base,), "zstd")))
    tops = [pack([("top.bin", secrets.token_bytes(100_000))]) for _ in range(2)]
    several = [give(lab.podman, Made(unique(), (base, top), "zstd")) for top in tops]
    [note] = load(lab, lab.podman, *several)
    assert "since saving failed" in note


@pytest.mark.parametrize("transport", ["auto", "delta"])
def test_an_image_without_dates_is_loaded(lab: Lab, give: Give, transport: TransportOption) -> None:
    """Podman 4.3 panics on a query of its history, which only has the sizes of the layers."""
    assert load(lab, lab.podman, give(lab.podman, Undated(unique())), transport=transport) == []


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_layer_that_an_engine_cannot_restore_is_named_as_the_cause(
    lab: Lab, give: Give, tmp_path: Path, engine: str
) -> None:
    """It is not pushed then, which Docker would try for 50 seconds; the archive can be loaded."""
    host = lab.engine(engine)
    made = give(host, Made(unique(), (layer("base.txt"), sparse_layer(tmp_path))))
    events: list[Event] = []
    with pytest.raises(EngineFailed) as caught:
        imgload.load(made.name, cluster=CLUSTER, source=host.url, on_event=events.append)
    assert caught.value.final
    assert "imgload load IMAGE --from FILE" in caught.value.hint
    assert not [event for event in events if isinstance(event, Note)]
    archive = tmp_path / "app.tar"
    archive.write_bytes(pack(new([made])))
    assert imgload.load(made.name, cluster=CLUSTER, source=archive).ok


class Anywhere(Made):
    """An image whose config has neither an operating system nor an architecture."""

    @property
    def config(self) -> bytes:
        value = json.loads(super().config)
        return encode({key: value[key] for key in value if key not in self.platform})


@pytest.mark.parametrize("engine", ["docker", "docker28", "podman"])
def test_an_image_without_a_platform_is_loaded_for_every_platform(
    lab: Lab, give: Give, engine: str
) -> None:
    """As a delta, without a note about emulation, and for a requested platform (kind #2864)."""
    host, base = lab.engine(engine), layer("base.txt")
    load(lab, host, give(host, Anywhere(unique(), (base,))), transport="import")
    made = give(host, Anywhere(unique(), (base, layer())))
    assert load(lab, host, made, transport="import") == []
    assert imgload.load(made.name, cluster=CLUSTER, source=host.url, platform="linux/amd64").ok


@contextmanager
def podman_with_home(lab: Lab, home: Path) -> Iterator[str]:
    """Run a second service on the same storage; its home may have a signature policy."""
    socket = home / "podman.sock"
    url = f"unix://{socket}"
    argv = (*lab.podman.client, "system", "service", "--time=0", url)
    env = {**os.environ, "HOME": str(home)}
    daemon = Daemon("podman-with-home", argv, home, lambda: ping(socket), env)
    daemon.start()
    yield url
    daemon.stop()


def test_a_signature_policy_that_rejects_every_image_is_named_as_the_cause(
    lab: Lab, give: Give, tmp_path: Path
) -> None:
    """Without a push, which would fail as well. The change in the hint makes the image loadable."""
    made, policy = give(lab.podman, Made(unique())), tmp_path / ".config/containers/policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "reject"}]}')
    events: list[Event] = []
    with podman_with_home(lab, tmp_path) as url:
        with pytest.raises(EngineFailed) as caught:
            imgload.load(made.name, cluster=CLUSTER, source=url, on_event=events.append)
        assert not [event for event in events if isinstance(event, Note)]
        addition = re.search(r'"containers-storage": \{.*\}\]\}', caught.value.hint)
        assert addition
        transports = f'"transports": {{{addition[0]}}}'
        policy.write_text(f'{{"default": [{{"type": "reject"}}], {transports}}}')
        assert imgload.load(made.name, cluster=CLUSTER, source=url).ok


def test_an_image_without_its_base_layer_is_loaded_where_the_nodes_have_it(
    lab: Lab, give: Give
) -> None:
    """Docker can run, and neither save nor describe it (moby #49473)."""
    docker, base = lab.docker28, layer("base.txt")
    assert isinstance(docker, NewerDocker)
    load(lab, docker, give(docker, Made(unique(), (base,))))
    made = give(docker, Made(unique(), (base, layer())))
    docker.ctr("content", "rm", str(made.diff_ids[0]))
    load(lab, docker, made)


def test_an_artifact_in_dockers_store_is_named(lab: Lab) -> None:
    docker, name = lab.docker28, unique("rocket")
    docker.cli("load", stdin=pack(layout(artifact(f"docker.io/library/{name}"))))
    with pytest.raises(NotAnImage) as caught:
        imgload.load(name, cluster=CLUSTER, source=docker.url)
    assert name in caught.value.message
    assert caught.value.content == "artifact"
    docker.remove_image(name)


def test_an_image_without_its_base_layer_is_refused_where_a_node_lacks_it(
    lab: Lab, give: Give
) -> None:
    """Loading its archive into Docker, as in the hint, restores the layer."""
    docker = lab.docker28
    assert isinstance(docker, NewerDocker)
    made = give(docker, Made(unique()))
    docker.ctr("content", "rm", str(made.diff_ids[0]))
    with pytest.raises(ImageIncomplete) as caught:
        load(lab, docker, made)
    assert "docker load --input FILE" in caught.value.hint
    docker.cli("load", stdin=pack(new([made])))
    load(lab, docker, made)
