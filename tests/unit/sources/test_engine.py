"""Images in an engine's store."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from imgload.core.errors import EngineFailed
from imgload.oci.archive import Wanted
from imgload.oci.platform import Platform
from imgload.sources.engine import EngineSource
from tests.unit.archives import Image, Repack, docker25, layer, pack, split
from tests.unit.fakes import LocalEngine, engine_image


class SavingEngine(LocalEngine):
    """Saves the same archive for whatever it is asked for."""

    def __init__(self, folder: Path, archive: bytes) -> None:
        super().__init__(folder, images={"app:v1": engine_image()})
        self._archive = archive

    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> AbstractContextManager[Iterator[bytes]]:
        del images, platform, size
        return nullcontext(split(self._archive, 1000))


OTHER = pack(docker25(Image((layer("other"),))))


@pytest.mark.parametrize("archive", [OTHER, OTHER[:-3000], b"no tar" * 100])
def test_a_save_that_cannot_be_used_is_the_engines_failure(tmp_path: Path, archive: bytes) -> None:
    """It lacks the image that was asked for, is cut off, or is no archive at all."""
    source = EngineSource(SavingEngine(tmp_path, archive))
    found = source.find("app:v1", None)
    assert found
    with pytest.raises(EngineFailed) as caught, source.save([found]) as saved:
        list(Repack(saved, [Wanted(found.target, found.names)]))
    assert caught.value.exit_status == EngineFailed.exit_status
    assert str(source.engine.endpoint) in caught.value.message
    assert f"docker save {found.id}" in caught.value.hint
