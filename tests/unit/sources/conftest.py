"""Archives as sources."""

from collections.abc import Callable
from pathlib import Path

import pytest

from imgload.sources.archive import ArchiveSource
from tests.unit.archives import Entry, pack

Open = Callable[[list[Entry] | bytes], ArchiveSource]


@pytest.fixture
def source(tmp_path: Path) -> Open:
    """Give a function that makes an archive of members, or of bytes."""

    def make(content: list[Entry] | bytes) -> ArchiveSource:
        path = tmp_path / "images.tar"
        path.write_bytes(content if isinstance(content, bytes) else pack(content))
        return ArchiveSource(str(path))

    return make
