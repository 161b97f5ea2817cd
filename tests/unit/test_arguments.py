"""Arguments of the library with a wrong type or an unusual value."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import imgload
from imgload.clusters.select import select_nodes
from imgload.core.errors import ImgloadError, NodeNotFound, UsageError
from imgload.loader.loader import Loader
from imgload.loader.prepare import Request
from imgload.loader.session import Session
from imgload.sources.archive import ArchiveSource
from imgload.tools.inventory.prune import Policy
from tests.unit.archives import Image, layer, oci, pack
from tests.unit.clusters.nodes.test_node import node_on

ODD = [None, 5, b"x", [None], Path("x"), "", "a\0b", "\udcff"]
URL = "http://127.0.0.1:1"
IMAGE = Image((layer("amd64"),), platform="linux/amd64")


def connect(**given: Any) -> None:
    with Loader.connect(**given):
        pass


def watch(patterns: Any = "app", **given: Any) -> None:
    next(imgload.watch(patterns, **given))


CALLS: dict[Callable[..., Any], dict[str, Any]] = {
    imgload.load: {"images": "app"},
    imgload.verify: {"images": "app"},
    imgload.images: {},
    imgload.prune: {},
    imgload.connect_registry: {"url": URL},
    imgload.disconnect_registry: {"url": URL},
    imgload.push_to_registry: {"images": "app", "url": URL},
    imgload.diagnose: {},
    imgload.clear_cache: {"dry_run": True},
    watch: {},
    connect: {},
    select_nodes: {"engines": [], "cluster": None, "names": ()},
    Policy: {},
    Request: {"texts": ["app"]},
    imgload.Reference.parse: {"text": "app"},
    imgload.Platform.parse: {"text": "arm64"},
    imgload.Digest.parse: {"text": "app"},
}
"""Calls that need no engine, with their required arguments. Each refuses invalid arguments before
the discovery of engines, if possible, and raises an `ImgloadError` later."""
SHARED = ("cluster", "nodes", "source", "tag", "extra_tags", "platform", "transport", "verify")
PARAMETERS = {
    imgload.load: ("images", *SHARED, "on_event"),
    imgload.verify: ("images", "cluster", "nodes", "source", "tag", "platform", "on_event"),
    imgload.images: ("patterns", "cluster", "nodes"),
    imgload.prune: ("repositories", "cluster", "nodes", "keep", "older_than"),
    imgload.connect_registry: ("url", "mirrors", "cluster", "nodes"),
    imgload.disconnect_registry: ("url", "cluster", "nodes"),
    imgload.push_to_registry: ("images", "url", "source", "tag"),
    imgload.diagnose: ("image", "cluster", "nodes"),
    imgload.clear_cache: ("dry_run",),
    watch: ("patterns", "cluster", "nodes", "source", "on_event"),
    connect: ("cluster", "nodes", "source"),
    select_nodes: ("cluster", "names"),
    Policy: ("keep", "older_than"),
    Request: ("texts", "tag", "extra_tags", "platform", "transport", "verify"),
    imgload.Reference.parse: ("text",),
    imgload.Platform.parse: ("text",),
    imgload.Digest.parse: ("text",),
}


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_an_odd_argument_is_accepted_or_raises_an_imgload_error(call: Any, odd: Any) -> None:
    """Never an internal TypeError or AttributeError."""
    for parameter in PARAMETERS[call]:
        with suppress(ImgloadError):
            call(**CALLS[call] | {parameter: odd})


def loader(folder: Path) -> Loader:
    (folder / "app.tar").write_bytes(pack(oci(IMAGE)))
    return Loader([ArchiveSource(str(folder / "app.tar"))], [node_on(folder, uname="echo x86_64")])


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_argument_of_a_method_raises_an_imgload_error(tmp_path: Path, odd: Any) -> None:
    """As for functions."""
    made = loader(tmp_path)
    for call, parameters in {
        made.load: ("images", "tag", "extra_tags", "platform", "transport", "verify", "on_event"),
        made.verify: ("images", "tag", "platform", "on_event"),
        made.survey_ahead: ("name",),
    }.items():
        for parameter in parameters:
            given: dict[str, Any] = {} if call == made.survey_ahead else {"images": []}
            with suppress(ImgloadError):
                call(**given | {parameter: odd})  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (imgload.load, {"images": "app", "on_event": None}),
        (imgload.load, {"images": "app", "transport": "fast"}),
        (imgload.load, {"images": "app", "verify": "x"}),
        (imgload.load, {"images": "app", "verify": True}),
        (imgload.load, {"images": "app", "dry_run": "no"}),
        (imgload.load, {"images": "app", "pin": "no"}),
        (imgload.load, {"images": "app", "strict_platform": "no"}),
        (imgload.load, {"images": "app", "follow_links": 1}),
        (imgload.verify, {"images": "app", "deep": "yes"}),
        (imgload.verify, {"images": "app", "complete": None}),
        (imgload.prune, {"everything": "no"}),
        (imgload.prune, {"dry_run": None}),
        (imgload.load, {"images": None}),
        (imgload.load, {"images": b"app"}),
        (imgload.load, {"images": "app", "nodes": 5}),
        (imgload.prune, {"keep": "3"}),
        (imgload.prune, {"keep": 1.5}),
        (imgload.prune, {"older_than": 5}),
        (imgload.watch, {"patterns": "app", "on_event": None}),
    ],
)
def test_an_invalid_argument_is_refused_before_a_request_to_an_engine(
    call: Any, given: dict[str, Any]
) -> None:
    """Not after the images were saved."""
    with pytest.raises(UsageError):
        list(call(**given))


def test_complete_content_cannot_be_discarded() -> None:
    with pytest.raises(UsageError):
        Request("app", complete=True, discard_layers=True)


def test_one_string_is_one_element() -> None:
    """Not a list of its letters."""
    request = Request("app:dev", extra_tags="x")
    assert (request.texts, request.extra_tags) == (("app:dev",), ("x",))
    with pytest.raises(NodeNotFound, match="no node kind-worker;"):
        select_nodes([], None, "kind-worker")
    assert Policy(older_than=timedelta(1)).keep == 3


def test_a_path_object_is_a_source(tmp_path: Path) -> None:
    """Like its `str`, as for `open`."""
    (tmp_path / "app.tar").write_bytes(pack(oci(IMAGE)))
    with suppress(ImgloadError), Session.open(tmp_path / "app.tar") as connections:
        assert connections.sources[0].describe.endswith("app.tar")
