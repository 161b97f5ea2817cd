"""An engine that cannot push to imgload, as in a VM: its images are saved whole."""

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
    """Images are saved whole, with one note; the engine is tested once and never pushes."""
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    base = unique("base")
    images.build(engine, base, bytes(1 << 20))
    notes: list[list[str]] = []
    with relay(engine, tmp_path) as proxy:
        for _ in range(3):
            images.build(engine, tag, base=base)
            events: list[Event] = []
            start = time.monotonic()
            report = imgload.load(tag, cluster="lab-d21", source=proxy.url, on_event=events.append)
            assert time.monotonic() - start < 10
            assert report.images[0].nodes[0].transport == "pull", "the nodes reach this machine"
            assert cri_id(node, f"docker.io/library/{tag}") == str(report.images[0].image_id)
            notes.append([event.text for event in events if isinstance(event, Note)])
        again = imgload.load(tag, cluster="lab-d21", source=proxy.url)
        requests = [r for r in proxy.requests if "/distribution/" in r or "/push" in r]
    assert ["/distribution/" in request for request in requests] == [True]
    printed = [lines for lines in notes if lines]
    assert again.images[0].nodes[0].action == "present", "identified by its manifest's digest"
    assert printed
    assert all(len(lines) == 1 and "whole" in lines[0] for lines in printed)
    forget(node, f"docker.io/library/{tag}")
