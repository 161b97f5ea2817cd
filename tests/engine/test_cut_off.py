"""An engine that cannot push to this process, as in a VM: its images are saved whole."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import imgload
from imgload.loader.events import Event, Note
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.relay import relay
from tests.lab import Lab


@pytest.mark.parametrize("source", ["docker-cut-off", "docker28-cut-off"])
def test_an_engine_that_cannot_reach_the_receiver_is_detected_and_cached(
    lab: Lab, images: Images, tmp_path: Path, source: str
) -> None:
    """Loaded by archive, with one line said; it is asked once only, and never told to push."""
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    base = unique("base")
    images.build(engine, base, bytes(1 << 20))
    said: list[list[str]] = []
    with relay(engine, tmp_path) as between:
        for _ in range(3):
            images.build(engine, tag, base=base)
            events: list[Event] = []
            start = time.monotonic()
            report = imgload.load(
                tag, cluster="lab-d21", source=between.url, on_event=events.append
            )
            assert time.monotonic() - start < 10
            assert cri_id(node, f"docker.io/library/{tag}") == str(report.images[0].image_id)
            said.append([event.text for event in events if isinstance(event, Note)])
        again = imgload.load(tag, cluster="lab-d21", source=between.url)
        asked = [r for r in between.requests if "/distribution/" in r or "/push" in r]
    assert ["/distribution/" in request for request in asked] == [True]
    told = [notes for notes in said if notes]
    assert again.images[0].nodes[0].action == "present", "known by its manifest's digest"
    assert told
    assert all(len(notes) == 1 and "whole" in notes[0] for notes in told)
    forget(node, f"docker.io/library/{tag}")
