"""The matrix: every source, every kind of image, every containerd; docs/compatibility.md."""

from __future__ import annotations

import gzip
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest
from backports import zstd

from imgload.oci.digest import Digest
from tests.engine.kinds import ARM64, EMPTY, Made, Platforms, layer, new, oci, old, saved
from tests.engine.matrix import VERSIONS, Batch, Place, Row, Wish
from tests.engine.page import PAGE, Page, writing
from tests.lab import Lab
from tests.lab.engine import Engine
from tests.lab.shell import CommandError
from tests.unit.archives import Entry, pack

BUILT, DEEP, SEVERAL, UNTAGGED, PINNED = (
    "built by an engine",
    "127 layers",
    "several platforms, one absent, attested",
    "untagged, by ID",
    "by its digest",
)
KINDS = (
    BUILT,
    "gzip layers",
    "zstd layers",
    "uncompressed layers",
    "an empty layer",
    "one layer twice",
    "no layers",
    DEEP,
    "a foreign layer",
    SEVERAL,
    "arm64/v8 only",
    UNTAGGED,
    PINNED,
)
ENGINES = {
    "Docker 20.10": "docker",
    "Docker 28, graphdriver": "docker28-graphdriver",
    "Docker 28, containerd store": "docker28",
    "Podman": "podman",
    "Podman, rootless": "podman-rootless",
}
FORMS = {"docker-archive": old, "docker-archive of Docker 25+": new, "OCI archive": oci}
DOCKER_ARCHIVE, OCI_ARCHIVE = ("--format", "docker-archive"), ("--format", "oci-archive")
SAVED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "docker-archive": ("docker", ()),
    "docker-archive, gzip": ("podman", DOCKER_ARCHIVE),
    "docker-archive, zstd": ("podman-rootless", DOCKER_ARCHIVE),
    "docker-archive of Docker 25+": ("docker28", ()),
    "docker-archive of Docker 25+, gzip": ("docker28-graphdriver", ()),
    "docker-archive of Docker 25+, zstd": ("docker28", ()),
    "OCI archive": ("podman", OCI_ARCHIVE),
    "OCI archive, gzip": ("docker28", ()),
    "OCI archive, zstd": ("podman-rootless", OCI_ARCHIVE),
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
PIPED = ("docker-archive", "docker-archive of Docker 25+, zstd", "OCI archive, gzip")
FOLDER = "OCI layout folder"
SOURCES = (*ENGINES, *SAVED_BY, FOLDER, *(f"standard input: {name}" for name in PIPED))
_DIFFERS = re.compile(r"(unix://|(?<!\S))/[^\s;:]+|:t[0-9a-f]{12}|(sha256:)?[0-9a-f]{12,}|\d{6,}")
_LISTED = re.compile(r"(\S*…), (\S*…, )*\S*…( and \d+ more)?")


def _made() -> dict[str, Made]:
    """Make an image of each kind; no other test uses their names."""
    suffix, twice = secrets.token_hex(6), layer("twice.txt")
    names = {kind: f"compat-{re.sub('[^a-z0-9]+', '-', kind.lower())}:t{suffix}" for kind in KINDS}
    deep = tuple(layer(f"{number}.txt") for number in range(127))
    special: dict[str, Made] = {
        "gzip layers": Made(names["gzip layers"], compression="gzip"),
        "zstd layers": Made(names["zstd layers"], compression="zstd"),
        "an empty layer": Made(names["an empty layer"], (layer("base.txt"), EMPTY, layer())),
        "one layer twice": Made(names["one layer twice"], (twice, layer(), twice)),
        "no layers": Made(names["no layers"], ()),
        DEEP: Made(names[DEEP], deep, "gzip"),
        "a foreign layer": Made(names["a foreign layer"], compression="gzip", foreign=True),
        SEVERAL: Platforms(names[SEVERAL], compression="gzip"),
        "arm64/v8 only": Made(names["arm64/v8 only"], platform=ARM64),
        UNTAGGED: Made(""),
    }
    return {kind: special.get(kind) or Made(names[kind]) for kind in KINDS[1:]}


def wish(kind: str, made: Made, text: str = "") -> Wish:
    """Return how to ask for an image, and what is to come of it."""
    by_digest = f"{made.name.partition(':')[0]}@{Digest.of(made.manifest)}"
    asked = text or (by_digest if kind == PINNED else made.name or made.image_id)
    return Wish(kind, asked, made.image_id, made.chain_id, made.platform == ARM64)


@pytest.fixture(scope="module")
def places(lab: Lab) -> Iterator[list[Place]]:
    """Nodes of our own, where no other test leaves a record."""
    suffix = secrets.token_hex(3)
    names = {version: f"lab-compat-{version.replace('.', '')}-{suffix}" for version in VERSIONS}
    made = [Place.make(lab, version, name) for version, name in names.items()]
    yield made
    for place in made:
        place.node.engine.remove_containers(place.node.name)


@attrs.frozen
class Stock:
    """What an engine has: an image that it built, and those that it took; made meanwhile."""

    engine: Engine
    built: Future[str]
    refused: Future[dict[str, str]]

    def saved(self, *options: str) -> tuple[Wish, bytes]:
        """Return what is wanted of the image that was built, and what the engine saves of it."""
        name = self.built.result()
        archive = self.engine.raw("save", *options, name)
        return Wish(BUILT, name, *saved(archive)), archive


@attrs.define
class Shelf:
    """The images, and what each engine has of them; cleared at the end of all tests."""

    lab: Lab
    folder: Path
    made: Mapping[str, Made] = attrs.field(factory=_made)
    other: Made = attrs.field(factory=lambda: Made(f"compat-other:t{secrets.token_hex(6)}"))
    stocks: dict[str, Stock] = attrs.field(factory=dict)

    def fill(self, pool: Executor) -> None:
        """Have all engines build, then take images: 127 layers take some of them a while."""
        engines = [self.lab.engine(name) for name in ENGINES.values()]
        built = [pool.submit(_build, engine) for engine in engines]
        for engine, image in zip(engines, built, strict=True):
            taken = pool.submit(self._take_all, engine)
            self.stocks[engine.name] = Stock(engine, image, taken)

    def clear(self) -> None:
        names = [made.name for made in (*self.made.values(), self.other) if made.name]
        for stock in self.stocks.values():
            stock.engine.cli("rmi", "--force", stock.built.result(), *names)

    def _take_all(self, engine: Engine) -> dict[str, str]:
        """Have an engine load all images, the deep one by itself; return what it said of others."""
        kinds = [kind for kind in KINDS[1:] if kind != DEEP]
        return self._take(engine, kinds) | self._take(engine, [DEEP])

    def _take(self, engine: Engine, kinds: Sequence[str]) -> dict[str, str]:
        archive = pack(new([*(self.made[kind] for kind in kinds), self.other]))
        try:
            engine.cli("load", stdin=archive)
        except CommandError as error:
            if len(kinds) == 1:
                return {kinds[0]: str(error)}
            half = len(kinds) // 2
            return self._take(engine, kinds[:half]) | self._take(engine, kinds[half:])
        return {}

    def file(self, archive: bytes) -> str:
        path = self.folder / secrets.token_hex(4)
        path.write_bytes(archive)
        return str(path)


def _build(engine: Engine) -> str:
    """Return a name as the engine has it: Podman puts ``localhost/`` before it."""
    local = "localhost/" if engine.name.startswith("podman") else ""
    name = f"{local}compat-built:t{secrets.token_hex(6)}"
    files = [{"base.txt": secrets.token_bytes(40)}, {"app.txt": secrets.token_bytes(40)}]
    engine.build(name, layers=files, instructions=['CMD ["/app"]'])
    return name


@pytest.fixture(scope="module")
def shelf(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Keeps the images."""
    made = Shelf(lab, tmp_path_factory.mktemp("compatibility"))
    with ThreadPoolExecutor(len(ENGINES)) as pool:
        made.fill(pool)
        yield made
    made.clear()


def engine_row(shelf: Shelf, row: Row, name: str) -> None:
    """What an engine built, and what it took of the others."""
    stock = shelf.stocks[ENGINES[name]]
    built, _ = stock.saved()
    refused = stock.refused.result()
    row.cells |= dict.fromkeys(refused, "not taken")
    row.notes += refused.items()
    wishes = [wish(kind, made) for kind, made in shelf.made.items() if kind not in refused]
    if stock.engine.name == "docker28":
        manifest = str(Digest.of(shelf.made[UNTAGGED].manifest))
        wishes = [attrs.evolve(w, text=manifest) if w.kind == UNTAGGED else w for w in wishes]
    alone = [w for w in wishes if w.kind in {UNTAGGED, PINNED}]
    together = [built, *(w for w in wishes if w not in alone)]
    row.fill([Batch(stock.engine.url, tuple(some)) for some in (together, *([w] for w in alone))])


def archives(shelf: Shelf, row: Row, name: str) -> Iterator[tuple[bytes, tuple[Wish, ...]]]:
    """One archive as an engine saved it, and one of all the other kinds; with what to ask for."""
    form, _, compression = name.partition(", ")
    engine, options = SAVED_BY[name]
    compress = COMPRESS.get(compression, bytes)
    built, archive = shelf.stocks[engine].saved(*options)
    yield compress(archive), (built,)
    kinds = [kind for kind in KINDS[1:] if not (kind == SEVERAL and form == "docker-archive")]
    if SEVERAL not in kinds:
        row.cells[SEVERAL] = "no such archive"
    images = {kind: shelf.made[kind] for kind in kinds}
    content = compress(pack(FORMS[form]([*images.values(), shelf.other])))
    wishes = [wish(kind, made) for kind, made in images.items()]
    alone = [w for w in wishes if w.kind == PINNED and form == "docker-archive"]
    yield content, tuple(w for w in wishes if w not in alone)
    if alone:
        yield content, tuple(alone)


def archive_row(shelf: Shelf, row: Row, name: str) -> None:
    """The archives as files; of the first, all images are asked for by naming none."""
    row.fill(
        [
            Batch(shelf.file(archive), wishes, all=wishes[0].kind == BUILT)
            for archive, wishes in archives(shelf, row, name)
        ]
    )


def pipe_row(shelf: Shelf, row: Row, name: str) -> None:
    """The archives through a pipe."""
    form = name.partition(": ")[2]
    row.fill([Batch("-", wishes, archive) for archive, wishes in archives(shelf, row, form)])


def folder_row(shelf: Shelf, row: Row, _name: str) -> None:
    """OCI layouts in folders; Podman's own, and one of all the other kinds."""
    stock, folder = shelf.stocks["podman"], shelf.folder / "built"
    built, _ = stock.saved()
    stock.engine.cli("save", "--format", "oci-dir", "--output", folder, built.text)
    made = _laid(shelf.folder / "made", oci([*shelf.made.values(), shelf.other]))
    wishes = tuple(wish(kind, image) for kind, image in shelf.made.items())
    row.fill([Batch(str(folder), (built,), all=True), Batch(made, wishes)])


def _laid(folder: Path, entries: Sequence[Entry]) -> str:
    for path, content in entries:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, bytes)
        (folder / path).write_bytes(content)
    return str(folder)


ROWS: dict[str, Callable[[Shelf, Row, str], None]] = {
    **dict.fromkeys(ENGINES, engine_row),
    **dict.fromkeys(SAVED_BY, archive_row),
    FOLDER: folder_row,
    **{f"standard input: {name}": pipe_row for name in PIPED},
}


def told(kind: str, said: str) -> str:
    """Return what was said, without what differs from run to run."""
    line = _LISTED.sub(r"\1, …", _DIFFERS.sub("…", said.strip().splitlines()[-1]))
    return f"{kind}: {line}" if kind else line


@pytest.mark.parametrize("name", [*SOURCES[len(ENGINES) :], *ENGINES])
def test_each_source_loads_as_documented_on_every_containerd(
    places: list[Place], shelf: Shelf, name: str
) -> None:
    """All kinds from one source onto each containerd; the page says what happened."""
    row = Row(places)
    ROWS[name](shelf, row, name)
    cells = [row.cells[kind] for kind in KINDS]
    notes = [told(*note) for note in row.notes]
    page = Page.read()
    if writing():
        written = attrs.evolve(page, columns=KINDS).with_row(name, cells, notes)
        PAGE.write_text(written.text(SOURCES))
    else:
        assert dict(zip(page.columns, page.rows[name], strict=True)) == dict(
            zip(KINDS, cells, strict=True)
        )
        assert page.notes_of(name) == notes


def test_the_page_contains_only_generated_text() -> None:
    """Nothing was added by hand, and no source is without its row."""
    assert set(Page.read().rows) == set(SOURCES)
    assert PAGE.read_text() == Page.read().text(SOURCES)
