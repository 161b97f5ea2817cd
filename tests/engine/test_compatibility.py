"""The matrix: every source, every containerd, every kind of image; docs/compatibility.md."""

from __future__ import annotations

import gzip
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from backports import zstd

from tests.engine.kinds import ARM64, EMPTY, Made, Platforms, layer, new, oci, old, saved
from tests.engine.matrix import VERSIONS, Batch, Place, Wish, everywhere
from tests.engine.page import PAGE, Page, writing
from tests.lab import Lab
from tests.lab.engine import Engine
from tests.lab.shell import CommandError
from tests.unit.archives import Entry, pack

pytestmark = pytest.mark.long

KINDS = (
    "built by an engine",
    "gzip layers",
    "zstd layers",
    "uncompressed layers",
    "an empty layer",
    "one layer twice",
    "no layers",
    "several platforms, one absent, attested",
    "arm64/v8 only",
    "one of two",
    "untagged, by ID",
    "127 layers",
)
BUILT, ZSTD, BARE, SEVERAL, ONE, UNTAGGED, DEEP = (KINDS[i] for i in (0, 2, 6, 7, 9, 10, 11))
ALONE = {ZSTD, BARE}
"""Kinds that some engines cannot save: they would fail what is loaded together with them."""
ENGINES = {
    "Docker 20.10": "docker",
    "Docker 28, graphdriver": "docker28-graphdriver",
    "Docker 28, containerd store": "docker28",
    "Podman": "podman",
    "Podman, rootless": "podman-rootless",
}
FORMS = {"docker-archive": old, "docker-archive of Docker 25+": new, "OCI archive": oci}
SAVED_BY = {
    "docker-archive": ("docker", ()),
    "docker-archive, gzip": ("podman", ("--format", "docker-archive")),
    "docker-archive, zstd": ("podman-rootless", ("--format", "docker-archive")),
    "docker-archive of Docker 25+": ("docker28", ()),
    "docker-archive of Docker 25+, gzip": ("docker28-graphdriver", ()),
    "docker-archive of Docker 25+, zstd": ("docker28", ()),
    "OCI archive": ("podman", ("--format", "oci-archive")),
    "OCI archive, gzip": ("docker28", ()),
    "OCI archive, zstd": ("podman-rootless", ("--format", "oci-archive")),
}
_DIFFERS = re.compile(r"(sha256:)?[0-9a-f]{12,}|\S*/\S*/\S*|:t[0-9a-f]{12}|\d{6,}")
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
PIPED = ("docker-archive", "docker-archive of Docker 25+, zstd", "OCI archive, gzip")
FOLDER = "OCI layout folder"
ARCHIVES = tuple(f"{form}{end}" for form in FORMS for end in ("", ", gzip", ", zstd"))
SOURCES = (*ENGINES, *ARCHIVES, FOLDER, *(f"standard input: {name}" for name in PIPED))


def tag(kind: str) -> str:
    """Return a name that no other test uses."""
    return f"compat-{re.sub('[^a-z0-9]+', '-', kind.lower())}:t{secrets.token_hex(6)}"


def make(kind: str) -> Made:
    """Return a new image of a kind."""
    name, twice = tag(kind), layer("twice.txt")
    makers: dict[str, Callable[[], Made]] = {
        "gzip layers": lambda: Made(name, compression="gzip"),
        ZSTD: lambda: Made(name, compression="zstd"),
        "an empty layer": lambda: Made(name, (layer("base.txt"), EMPTY, layer())),
        "one layer twice": lambda: Made(name, (twice, layer(), twice)),
        BARE: lambda: Made(name, ()),
        SEVERAL: lambda: Platforms(name, compression="gzip"),
        "arm64/v8 only": lambda: Made(name, platform=ARM64),
        UNTAGGED: lambda: Made(""),
        DEEP: lambda: Made(name, tuple(layer(f"{i}.txt") for i in range(127)), "gzip"),
    }
    return makers[kind]() if kind in makers else Made(name)


def wish(kind: str, made: Made, text: str = "", versions: Sequence[str] = VERSIONS) -> Wish:
    """Return how to ask for an image, and what is to come of it."""
    asked = text or made.name or made.image_id
    return Wish(kind, asked, made.image_id, made.chain_id, made.platform == ARM64, versions)


@pytest.fixture(scope="module")
def places(lab: Lab) -> Iterator[list[Place]]:
    """Nodes of our own, where no other test leaves a record."""
    suffix = secrets.token_hex(3)
    names = {version: f"lab-compat-{version.replace('.', '')}-{suffix}" for version in VERSIONS}
    made = [Place.make(lab, version, name) for version, name in names.items()]
    yield made
    for place in made:
        place.node.engine.remove_containers(place.node.name)


@attrs.define
class Shelf:
    """What the sources of one test hold, and took or did not; cleared at its end."""

    lab: Lab
    folder: Path
    notes: list[str] = attrs.field(factory=list)
    absent: dict[str, str] = attrs.field(factory=dict)
    _held: list[tuple[Engine, str]] = attrs.field(factory=list)

    def clear(self) -> None:
        for engine in {engine.name: engine for engine, _ in self._held}.values():
            engine.cli("rmi", "--force", *(text for e, text in self._held if e == engine))

    def built(self, engine: Engine, options: Sequence[str] = ()) -> tuple[Wish, bytes]:
        """Have an engine build an image; also return what it saves of it."""
        name = tag(BUILT)
        files = [{"base.txt": secrets.token_bytes(40)}, {"app.txt": secrets.token_bytes(40)}]
        engine.build(name, layers=files, instructions=['CMD ["/app"]'])
        self._held.append((engine, name))
        archive = engine.raw("save", *options, name)
        return Wish(BUILT, name, *saved(archive)), archive

    def held(self, engine: Engine, kind: str, made: Made, *, deep_on: str) -> Wish | None:
        """Have an engine load an image; None where it does not take it."""
        form = oci if engine.name == "docker28" and kind == SEVERAL else new
        images = [made, make("other")] if kind == ONE else [made]
        try:
            said = engine.cli("load", stdin=pack(form(images)))
        except CommandError as error:
            self.absent[kind] = "not taken"
            self.note(kind, error.stderr)
            return None
        found = re.search(r"sha256:([0-9a-f]{64})", said)
        text = "" if made.name or not found else f"sha256:{found[1]}"
        self._held += [(engine, image.name or text) for image in images]
        return wish(kind, made, text, _versions(kind, deep_on))

    def note(self, kind: str, said: str) -> None:
        """Note why something was refused, without what differs from run to run."""
        line = said.strip().splitlines()[-1]
        self.notes.append(f"{kind}: {_DIFFERS.sub('…', line)}")

    def file(self, archive: bytes) -> str:
        path = self.folder / secrets.token_hex(4)
        path.write_bytes(archive)
        return str(path)


def _versions(kind: str, deep_on: str) -> Sequence[str]:
    """127 snapshots take a while: one node in turn."""
    return (deep_on,) if kind == DEEP else VERSIONS


@pytest.fixture
def shelf(lab: Lab, tmp_path: Path) -> Iterator[Shelf]:
    """Keeps the images of one test."""
    made = Shelf(lab, tmp_path)
    yield made
    made.clear()


def from_engine(shelf: Shelf, name: str, deep_on: str) -> list[Batch]:
    """What an engine built, and what it took of the others."""
    engine = shelf.lab.engine(ENGINES[name])
    built, _ = shelf.built(engine)
    held = [shelf.held(engine, kind, make(kind), deep_on=deep_on) for kind in KINDS[1:]]
    wishes = [built, *filter(None, held)]
    together = tuple(wish for wish in wishes if wish.kind not in ALONE)
    alone = [(wish,) for wish in wishes if wish.kind in ALONE]
    return [Batch(engine.url, some) for some in (together, *alone)]


def made_for(form: str, deep_on: str) -> tuple[list[Made], tuple[Wish, ...]]:
    """Make images of all kinds that a form can hold, and one that nobody asks for."""
    kinds = [k for k in KINDS[1:] if not (k == SEVERAL and form == "docker-archive")]
    images = {kind: make(kind) for kind in kinds}
    wishes = tuple(wish(k, m, versions=_versions(k, deep_on)) for k, m in images.items())
    return [*images.values(), make("other")], wishes


def archived(shelf: Shelf, name: str, deep_on: str) -> list[tuple[bytes, tuple[Wish, ...]]]:
    """One archive as an engine saved it, and one of all the other kinds."""
    form, _, compression = name.partition(", ")
    engine, options = SAVED_BY[name]
    built, archive = shelf.built(shelf.lab.engine(engine), options)
    images, wishes = made_for(form, deep_on)
    compress = COMPRESS.get(compression, bytes)
    if form == "docker-archive":
        shelf.absent[SEVERAL] = "no such archive"
    pair = [(archive, (built,)), (pack(FORMS[form](images)), wishes)]
    return [(compress(content), wanted) for content, wanted in pair]


def from_archive(shelf: Shelf, name: str, deep_on: str) -> list[Batch]:
    """The archives as files."""
    return [Batch(shelf.file(a), wishes) for a, wishes in archived(shelf, name, deep_on)]


def from_pipe(shelf: Shelf, name: str, deep_on: str) -> list[Batch]:
    """The archives through a pipe."""
    form = name.partition(": ")[2]
    return [Batch("-", wishes, archive) for archive, wishes in archived(shelf, form, deep_on)]


def from_folder(shelf: Shelf, _name: str, deep_on: str) -> list[Batch]:
    """OCI layouts in folders; Podman's own, and one of all the other kinds."""
    engine = shelf.lab.podman
    built, _ = shelf.built(engine)
    folder = shelf.folder / "built"
    engine.cli("save", "--format", "oci-dir", "--output", folder, built.text)
    images, wishes = made_for("OCI archive", deep_on)
    return [Batch(str(folder), (built,)), Batch(_laid(shelf.folder / "made", oci(images)), wishes)]


def _laid(folder: Path, entries: Sequence[Entry]) -> str:
    for path, content in entries:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, bytes)
        (folder / path).write_bytes(content)
    return str(folder)


def batches(shelf: Shelf, name: str) -> list[Batch]:
    """Fill a source."""
    deep_on = VERSIONS[SOURCES.index(name) % len(VERSIONS)]
    if name in ENGINES:
        return from_engine(shelf, name, deep_on)
    if name == FOLDER:
        return from_folder(shelf, name, deep_on)
    return (from_archive if name in ARCHIVES else from_pipe)(shelf, name, deep_on)


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_loaded_is_on_every_containerd(
    shelf: Shelf, places: list[Place], name: str
) -> None:
    """All kinds from one source onto each containerd; the page says what happened."""
    seen = everywhere(places, batches(shelf, name))
    cells = [str(seen[kind]) if kind in seen else shelf.absent[kind] for kind in KINDS]
    for kind, cell in seen.items():
        if cell.said:
            shelf.note(kind, cell.said)
    page = Page.read()
    if writing():
        written = attrs.evolve(page, columns=KINDS).with_row(name, cells, shelf.notes)
        PAGE.write_text(written.text(SOURCES))
    else:
        assert dict(zip(page.columns, page.rows[name], strict=True)) == dict(
            zip(KINDS, cells, strict=True)
        )
        assert page.notes_of(name) == shelf.notes


def test_the_page_is_what_the_tests_wrote() -> None:
    """Nothing was added by hand, and no source is without its row."""
    assert set(Page.read().rows) == set(SOURCES)
    assert PAGE.read_text() == Page.read().text(SOURCES)
