"""Images that an engine cannot save are pushed instead."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pytest

import imgload
from imgload.events import Event, Note
from imgload.oci.blobs import Compression
from tests.engine.conftest import cri_id, forget, unique
from tests.engine.kinds import Made, layer, new
from tests.lab import Lab
from tests.unit.archives import pack

CLUSTER = "lab-d21"


@pytest.mark.parametrize(
    ("source", "layers", "compression"),
    [("podman", [layer()], "zstd"), ("docker", [], "")],
    ids=["zstd layers in Podman", "no layers in Docker"],
)
def test_what_cannot_be_saved_is_pushed(
    lab: Lab, source: str, layers: Sequence[bytes], compression: Compression
) -> None:
    """The user is told; whoever asks for a save gets the engine's error."""
    engine, node = lab.engine(source), lab.cluster(CLUSTER).nodes[0]
    made, events = Made(unique(), tuple(layers), compression), list[Event]()
    engine.cli("load", stdin=pack(new([made])))
    try:
        options = {"cluster": CLUSTER, "source": engine.url}
        with pytest.raises(imgload.EngineFailed, match="saving"):
            imgload.load(made.name, transport="archive", **options)  # type: ignore[arg-type]
        imgload.load(made.name, on_event=events.append, **options)  # type: ignore[arg-type]
        notes = [event.text for event in events if isinstance(event, Note)]
        assert ["since saving failed" in note for note in notes] == [True]
        assert cri_id(node, f"docker.io/library/{made.name}") == made.image_id
        forget(node, f"docker.io/library/{made.name}")
    finally:
        engine.cli("rmi", "--force", made.name)


def test_what_cannot_be_saved_in_part_is_pushed_too(lab: Lab) -> None:
    """The node has the smaller layer, so that a save without that layer is tried first."""
    engine, node = lab.podman, lab.cluster(CLUSTER).nodes[0]
    base, top = layer("base.txt"), pack([("top.bin", secrets.token_bytes(100_000))])
    first, second = Made(unique(), (base,), "zstd"), Made(unique(), (base, top), "zstd")
    try:
        for made in (first, second):
            engine.cli("load", stdin=pack(new([made])))
            imgload.load(made.name, cluster=CLUSTER, source=engine.url)
            assert cri_id(node, f"docker.io/library/{made.name}") == made.image_id
        forget(node, *(f"docker.io/library/{made.name}" for made in (first, second)))
    finally:
        engine.cli("rmi", "--force", first.name, second.name)
