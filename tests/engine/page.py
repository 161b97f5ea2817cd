"""Read and write docs/compatibility.md, whose tables have the results of the tests."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import attrs

from tests.engine.kinds import KINDS
from tests.engine.matrix import ABSENT, LOADED, NOT_TAKEN, REFUSED, WARNED
from tests.engine.nodes import COLUMNS, CONTAINERD, Column, Refusal

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
WRITING = "IMGLOAD_WRITE_DOCS"
LETTERS = dict(zip(KINDS, "ABCDEFGHIJKLM", strict=True))
_OTHERS = tuple(title for title in COLUMNS if title != CONTAINERD)
_BEFORE = f"""\
# Compatibility

`scripts/test nightly` generates this page: `tests/engine/test_compatibility.py` loads each kind of
image from each source into each kind of node, and compares the results with the previous ones. If
they differ, the tests fail. The [versions](#versions) of all programs are at the end.

## Images of each source

The results on nodes with kind's labels and paths, which run containerd 1.6, 1.7 and Debian's
newest. Each image is loaded into all three in parallel, and the result must be the same on each.

* `{LOADED}` loaded: afterwards CRI had the image under the requested name, with the digest of the
  test's config as its ID; the snapshot of its top layer existed; and containerd had exactly the
  requested records, and CRI's own by ID. (Each source has one more image, which is not requested.)
* `{WARNED}` loaded with a warning: the nodes are amd64.
* `{REFUSED}` refused by imgload; the message is [below](#refusals).
* `{NOT_TAKEN}` the engine or the builder itself refuses the image.
* `{ABSENT}` the source cannot have such an image: a Dockerfile cannot describe it, the output of
  docker-buildx has no such option, or an old docker-archive has no platforms.

The kinds of images:

{{kinds}}
All images of a row except A come from one archive, or from one engine that they were loaded into.
An archive that an engine saved with a single image is loaded without naming the image. In the rows
with an output of docker-buildx, it builds each image, and all platforms.

"""
_NODES = f"""
## Each source on each kind of node

`{LOADED}` means that the nodes of the column end with the same images as those in the table above:
the same names, image IDs and layers, and no others. The test reads them with the node's own tools:
CRI and containerd, `docker` or `podman`. "except" names the kinds of images that these nodes cannot
have; the test expects imgload's [error](#refusals). `{NOT_TAKEN}` means that the source has no
image to load. The nodes of a column are loaded in parallel:

{{columns}}
k3d, k3s, k0s, RKE2 and MicroK8s have containerd's native snapshotter, the other nodes overlayfs.
"ssh" means that imgload connects to the node's ssh server, as to a machine.

"""
_REFUSALS = """
## Refusals

By the nodes of some columns:

{refused}
By engines, builders and imgload, with their messages:

"""
_VERSIONS = """
## Versions

The versions that the programs themselves reported in the last run:

"""
_AFTER = """
## Not tested

* CRI-O and cri-dockerd themselves: no Debian package has them. On nodes with CRI-O, a real Podman
  writes the store that CRI-O would read; on nodes with Docker, its own answers count.
* containerd's configuration version 4: every containerd available to the tests refuses it. Only
  the parser is tested (`test_every_config_version_is_understood`). The nodes above have version 2
  (containerd 1.6 and 1.7) and version 3 (newest).
* The real k3d, minikube, Cluster API, vCluster and Spegel, and Docker Desktop's VM: not available
  on the test machines. Containers with the names, labels and paths of their nodes replace them.
"""
_VERSION = re.compile(r"\* ([^:`]+): `([^`]+)`")


@attrs.frozen
class Page:
    """The page.

    `rows` has the results by source and kind of image, `on_nodes` those by source and column of
    other nodes, `notes` the messages, and `versions` those of the sources and nodes.
    """

    rows: Mapping[str, tuple[str, ...]]
    on_nodes: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def read(cls) -> Page:
        """Read the committed page."""
        lines = PAGE.read_text().splitlines()
        results, (head, _, *on_nodes) = (
            [_cells(line) for line in table]
            for is_table, table in groupby(lines, lambda line: line.startswith("|"))
            if is_table
        )
        return cls(
            {name: tuple(cells) for name, *cells in results[2:]},
            {name: dict(zip(head[1:], cells, strict=True)) for name, *cells in on_nodes},
            tuple(line for line in lines if line.startswith("- ")),
            {found[1]: found[2] for line in lines if (found := _VERSION.fullmatch(line))},
        )

    def with_row(self, name: str, cells: Sequence[str], notes: Sequence[str]) -> Page:
        """Return the page with the results of one source, added or replaced."""
        others = [note for note in self.notes if not note.startswith(f"- {name}: ")]
        added = [f"- {name}: {note}" for note in notes]
        return attrs.evolve(self, rows={**self.rows, name: tuple(cells)}, notes=(*others, *added))

    def with_nodes(self, name: str, column: str, cell: str) -> Page:
        """Return the page with the result of one source on other nodes."""
        row = {**self.on_nodes.get(name, {}), column: cell}
        return attrs.evolve(self, on_nodes={**self.on_nodes, name: row})

    def with_versions(self, versions: Mapping[str, str]) -> Page:
        return attrs.evolve(self, versions={**self.versions, **versions})

    def results(self, name: str) -> dict[str, str]:
        """Return the results of a source by kind of image."""
        return dict(zip(KINDS, self.rows[name], strict=True))

    def notes_of(self, name: str) -> list[str]:
        """Return the notes about a source."""
        start = f"- {name}: "
        return [note.removeprefix(start) for note in self.notes if note.startswith(start)]

    def text(self, order: Sequence[str]) -> str:
        """Return the page, without sources that are not in `order`."""
        names = [name for name in order if name in self.rows]
        rows = [(name, *self.rows[name]) for name in names]
        on_nodes = [
            (name, *(self.on_nodes.get(name, {}).get(title, "") for title in _OTHERS))
            for name in names
        ]
        parts = [
            _BEFORE.format(kinds=_listed(f"{letter}: {k}" for k, letter in LETTERS.items())),
            *_table(("source", *LETTERS.values()), rows),
            _NODES.format(
                columns=_listed(
                    f"{title}: {'; '.join(kind.title for kind in column.kinds)}"
                    for title, column in COLUMNS.items()
                    if title != CONTAINERD
                )
            ),
            *_table(("source", *_OTHERS), on_nodes),
            _REFUSALS.format(refused=_listed(_refusals())),
            *(f"- {name}: {note}\n" for name in names for note in self.notes_of(name)),
            _VERSIONS,
            *(f"* {name}: `{self.versions[name]}`\n" for name in sorted(self.versions)),
            _AFTER,
        ]
        return "".join(parts)


def refused_by(column: Column, results: Mapping[str, str]) -> dict[str, Refusal]:
    """Return the refusals of images that nodes with containerd have, from the results there."""
    return {k: e for k, e in column.refused.items() if results.get(k) in {LOADED, WARNED}}


def cell_of(column: Column, results: Mapping[str, str]) -> str:
    """Return the cell of a source on the nodes of a column, from its results on containerd."""
    same = LOADED if {LOADED, WARNED}.intersection(results.values()) else NOT_TAKEN
    letters = ", ".join(LETTERS[kind] for kind in refused_by(column, results))
    return f"{same} except {letters}" if letters else same


def _refusals() -> Iterator[str]:
    """Yield the refusals of columns, those for the same reason together."""
    columns: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for title, column in COLUMNS.items():
        for image, refusal in column.refused.items():
            columns[image, refusal.kind, refusal.reason].append(title)
    for (image, kind, reason), titles in columns.items():
        nodes = " and ".join(f'"{title}"' for title in titles)
        yield f"{LETTERS[image]} ({image}) on {nodes}: `{kind}`; {reason}."


def _listed(items: Iterable[str]) -> str:
    return "".join(f"* {item}\n" for item in items)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from (_line(*head), _line(*["---"] * len(head)), *(_line(*row) for row in rows))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def writing() -> bool:
    """Return whether to write the page, too."""
    return os.environ.get(WRITING) == "1"
