"""Changes in the engine, on the node and on the host during a load."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import imgload
from imgload.core.errors import EngineFailed
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.engine.peers import kind_load, printed
from tests.lab import Lab

MIB = 1 << 20


def _when_sending(act: Callable[[], object]) -> Callable[[imgload.Event], None]:
    """Return a listener that runs an action once, when the transfer starts."""
    actions = [act]

    def on_event(event: imgload.Event) -> None:
        if isinstance(event, imgload.SendingStarted) and actions:
            actions.pop()()

    return on_event


def test_a_load_uses_the_image_that_it_resolved_first(lab: Lab, images: Images) -> None:
    """A later build under the same name is not loaded; the report has the image ID."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    first = images.build(lab.docker, tag, b"x" * MIB)
    moved = _when_sending(lambda: images.build(lab.docker, tag, b"other"))
    report = imgload.load(tag, cluster="lab-d21", on_event=moved)
    assert str(report.images[0].image_id) == first
    assert cri_id(node, f"docker.io/library/{tag}") == first
    forget(node, f"docker.io/library/{tag}")


def test_an_image_removed_during_its_load_fails_the_load(lab: Lab, images: Images) -> None:
    """The engine reports it, and the node is unchanged."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag, b"x" * MIB)
    before = records(node)
    removed = _when_sending(lambda: lab.docker.cli("rmi", "-f", tag))
    with pytest.raises(EngineFailed, match=r"(?i)saving .* no such"):
        imgload.load(tag, cluster="lab-d21", on_event=removed)
    assert records(node) == before


@pytest.mark.parametrize("source", ["docker", "docker28"])
def test_a_load_works_without_a_cache_folder(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """If the cache folder cannot be created, nothing is cached and images are loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    for content in (b"one", b"two"):
        images.build(engine, tag, content)
        assert imgload.load(tag, cluster="lab-d21", source=engine.url).ok
    assert imgload.load(tag, cluster="lab-d21", source=engine.url).ok
    forget(node, f"docker.io/library/{tag}")


def test_two_loads_and_a_kind_load_succeed_in_parallel(lab: Lab, images: Images) -> None:
    """All load one image onto one node; only the image's name is added."""
    cluster, tag = lab.cluster("lab-d21"), unique()
    node = cluster.nodes[0]
    image = images.build(lab.docker, tag, b"x" * (8 * MIB))
    before = records(node)
    with ThreadPoolExecutor() as pool:
        ours = [pool.submit(imgload.load, tag, cluster="lab-d21") for _ in range(2)]
        theirs = pool.submit(kind_load, lab, cluster, "docker-image", tag)
    assert all(report.result().ok for report in ours)
    assert theirs.result().returncode == 0, printed(theirs.result())
    assert records(node) - before == {f"docker.io/library/{tag}"}
    assert cri_id(node, f"docker.io/library/{tag}") == image
    forget(node, f"docker.io/library/{tag}")
