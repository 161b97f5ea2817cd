"""What is sent in part, and what only whole."""

from pathlib import Path

import pytest

from imgload.clusters.nodes.node import Node
from imgload.engines.cache import EngineCache
from imgload.loader.send import Sending
from imgload.sources.archive import ArchiveSource
from imgload.sources.locate import locate, named
from imgload.transports.imports import ImportTransport
from tests.unit.archives import FORMS, Image, layer, pack
from tests.unit.fakes import RUNNING, LocalEngine
from tests.unit.samples import NOTHING

APP = Image((layer("base"), layer("app")))


@pytest.mark.parametrize("form", FORMS)
def test_layers_are_left_out_only_if_the_archive_identifies_them(tmp_path: Path, form: str) -> None:
    """Archives of Docker before 25 do not: all layers are sent and announced."""
    path = tmp_path / "app.tar"
    path.write_bytes(pack(FORMS[form](APP)))
    located = locate([], [ArchiveSource(str(path))], None)
    [image] = named(located, None)
    node = Node("kind-worker", LocalEngine(tmp_path), RUNNING)
    sending = Sending(
        images=[image],
        surveys={node.name: NOTHING},
        missing={node.name: frozenset(image.diff_ids[1:])},
        option="auto",
        on_event=lambda _: None,
        transport=ImportTransport(),
        memory=EngineCache(tmp_path / "m"),
    )
    assert (sending.delta_or_none([node]) is None) == (form == "docker20")
