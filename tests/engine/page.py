"""docs/compatibility.md: read, compared and written; its table is what the tests saw."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
WRITING = "IMGLOAD_WRITE_DOCS"
_BEFORE = """\
# What was loaded, from where, onto what

The tests made this table (`tests/engine/test_compatibility.py`): they load each image onto three
nodes at once, with containerd 1.6, 1.7 and 2.1, and write down what happened. When that is not
what stands here, they fail. `IMGLOAD_WRITE_DOCS=1 pytest tests/engine/test_compatibility.py`
writes this page.

"loaded" means that afterwards, on all three, CRI had the image under the name asked for, with the
digest of the config that the test had made as its ID; that the snapshot of its top layer was
there; and that containerd had exactly the records asked for, and CRI's own by ID: each source
holds one more image, which nobody asked for. "with a warning": the nodes are amd64. "not taken":
the engine itself refused the image.

Every image but the first of a row comes out of one archive, or one engine that was given it. What
an engine saved as an archive of one image is loaded without naming that.

"""
_AFTER = """
## What could not be tried

* containerd's configuration version 4: every containerd that can be had here refuses it. That it
  is understood, a test of the parser shows (`test_every_config_version_is_understood`). Versions 2
  and 3 are those of the nodes above: 1.6 and 1.7 with version 2, 2.1 with version 3.
* CRI on another snapshotter than ctr's default is not a column, but a test of its own, with the
  native one: `test_kind_11_ctrs_snapshotter_is_not_cris`.
* The real k3d and minikube, and Docker Desktop's VM: not to be had on the machines of the tests.
"""


@attrs.frozen
class Page:
    """The page; `rows` are the table's cells by source, `notes` what stands below it."""

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls) -> Page:
        """Read the committed page."""
        lines = PAGE.read_text().splitlines() if PAGE.exists() else []
        cells = [_cells(line) for line in lines if line.startswith("|")]
        notes = tuple(line for line in lines if line.startswith("- "))
        if not cells:
            return cls((), {})
        return cls(cells[0][1:], {name: tuple(rest) for name, *rest in cells[2:]}, notes)

    def with_row(self, name: str, cells: Sequence[str], notes: Sequence[str]) -> Page:
        """Return the page with what was seen of a source."""
        others = [note for note in self.notes if not note.startswith(f"- {name}: ")]
        added = [f"- {name}: {note}" for note in notes]
        return attrs.evolve(self, rows={**self.rows, name: tuple(cells)}, notes=(*others, *added))

    def notes_of(self, name: str) -> list[str]:
        """Return what is noted about a source."""
        start = f"- {name}: "
        return [note.removeprefix(start) for note in self.notes if note.startswith(start)]

    def text(self, order: Sequence[str]) -> str:
        """Return the page, its rows in an order."""
        head = [_line("source", *self.columns), _line(*["---"] * (len(self.columns) + 1))]
        rows = [_line(name, *self.rows[name]) for name in order if name in self.rows]
        notes = [note for name in order for note in map(str, self._lines(name))]
        told = (
            [
                "",
                "What was not taken by an engine, or refused by imgload, and what was said:",
                "",
                *notes,
            ]
            if notes
            else []
        )
        return _BEFORE + "\n".join([*head, *rows, *told]) + "\n" + _AFTER

    def _lines(self, name: str) -> list[str]:
        return [f"- {name}: {note}" for note in self.notes_of(name)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def writing() -> bool:
    """Whether the page is to be written, not compared."""
    return os.environ.get(WRITING) == "1"
