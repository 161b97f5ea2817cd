"""Read and write docs/compatibility.md, whose table has the results of the tests."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
WRITING = "IMGLOAD_WRITE_DOCS"
_BEFORE = """\
# Compatibility

`scripts/test nightly` generates this page: `tests/engine/test_compatibility.py` loads each image
in parallel onto three nodes, with containerd 1.6, 1.7 and Debian's newest, and compares the results
with the previous ones. If they differ, the tests fail. The [versions](#versions) of all programs
are at the end.

"loaded" means that afterwards, on all three nodes, CRI had the image under the requested name, with
the digest of the test's config as its ID; that the snapshot of its top layer existed; and that
containerd had exactly the requested records, and CRI's own by ID. (Each source has one more image,
which is not requested.) "with a warning": the nodes are amd64. "not taken": the engine itself
refused the image.

All images of a row except the first come from one archive, or from one engine that they were loaded
into. An archive that an engine saved with a single image is loaded without naming the image. In the
rows with an output of docker-buildx, it builds each image, and all platforms; the kinds "not built"
cannot be described in a Dockerfile, or the output has no such option.

"""
_VERSIONS = """
## Versions

The versions that the programs themselves reported in the last run:

"""
_AFTER = """
## Nodes with Docker

`tests/engine/test_docker_nodes.py` loads images into a real Docker 20.10 and 28 in nodes of
minikube's shape, which run in Docker and Podman. cri-dockerd is not available to the tests.

## Nodes with CRI-O

`test_each_source_loads_as_documented_into_crio` loads the same images into CRI-O's store with
Podman 4.3, 5.4 and the newest, and expects the results of the table. CRI-O itself is not available
to the tests.

## Not tested

* containerd's configuration version 4: every containerd available to the tests refuses it. Only
  the parser is tested (`test_every_config_version_is_understood`). The nodes above have version 2
  (containerd 1.6 and 1.7) and version 3 (newest).
* CRI with a snapshotter other than ctr's default has no column. It has its own test, with the
  native snapshotter: `test_kind_11_an_image_in_ctrs_snapshotter_is_loaded_again`.
* The real k3d, minikube, Cluster API, vCluster and Spegel, and Docker Desktop's VM: not available
  on the test machines. Containers with the names, labels and paths of their nodes replace them.
"""
_VERSION = re.compile(r"\* ([^:`]+): `([^`]+)`")


@attrs.frozen
class Page:
    """The page.

    `rows` are the table's cells by source, `notes` the lines below it, and `versions` those of the
    sources and nodes.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def read(cls) -> Page:
        """Read the committed page."""
        lines = PAGE.read_text().splitlines() if PAGE.exists() else []
        cells = [_cells(line) for line in lines if line.startswith("|")]
        notes = tuple(line for line in lines if line.startswith("- "))
        if not cells:
            return cls((), {})
        versions = {found[1]: found[2] for line in lines if (found := _VERSION.fullmatch(line))}
        rows = {name: tuple(rest) for name, *rest in cells[2:]}
        return cls(cells[0][1:], rows, notes, versions)

    def with_row(self, name: str, cells: Sequence[str], notes: Sequence[str]) -> Page:
        """Return the page with the results of one source, added or replaced."""
        others = [note for note in self.notes if not note.startswith(f"- {name}: ")]
        added = [f"- {name}: {note}" for note in notes]
        return attrs.evolve(self, rows={**self.rows, name: tuple(cells)}, notes=(*others, *added))

    def notes_of(self, name: str) -> list[str]:
        """Return the notes about a source."""
        start = f"- {name}: "
        return [note.removeprefix(start) for note in self.notes if note.startswith(start)]

    def text(self, order: Sequence[str]) -> str:
        """Return the page; sources that are not in `order` are omitted."""
        head = [_line("source", *self.columns), _line(*["---"] * (len(self.columns) + 1))]
        rows = [_line(name, *self.rows[name]) for name in order if name in self.rows]
        notes = [note for name in order for note in map(str, self._lines(name))]
        refusals = ["", "Refusals by engines and by imgload, with their messages:", "", *notes]
        body = [*head, *rows, *(refusals if notes else ())]
        versions = [f"* {name}: `{self.versions[name]}`\n" for name in sorted(self.versions)]
        return _BEFORE + "\n".join(body) + "\n" + _VERSIONS + "".join(versions) + _AFTER

    def _lines(self, name: str) -> list[str]:
        return [f"- {name}: {note}" for note in self.notes_of(name)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def writing() -> bool:
    """Return whether to write the page, too."""
    return os.environ.get(WRITING) == "1"
