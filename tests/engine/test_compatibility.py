"""The matrix of docs/compatibility.md: every source, kind of image and kind of node."""

from __future__ import annotations

import gzip
import json
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import attrs
import pytest
from backports import zstd

from imgload.oci.digest import Digest
from tests.engine.conftest import cases
from tests.engine.kinds import (
    ARM64,
    BUILT,
    DEEP,
    EMPTY,
    KINDS,
    NO_LAYERS,
    PINNED,
    SEVERAL,
    UNTAGGED,
    Made,
    Platforms,
    layer,
    new,
    oci,
    old,
    saved,
)
from tests.engine.matrix import ABSENT, NOT_TAKEN, REFUSED, Batch, Images, Row
from tests.engine.nodes import COLUMNS, CONTAINERD, Column, ExpectedImage, MatrixNode
from tests.engine.page import PAGE, Page, cell_of, refused_by, writing
from tests.engine.remote import open_folder
from tests.lab import Lab
from tests.lab.builder import Buildx
from tests.lab.engine import Engine
from tests.lab.shell import CommandError
from tests.unit.archives import pack, write_folder

ENGINES = {
    "Docker 20.10": "docker",
    "Docker 26, graphdriver": "docker26-graphdriver",
    "Docker 26, containerd store": "docker26",
    "Docker 28, graphdriver": "docker28-graphdriver",
    "Docker 28, containerd store": "docker28",
    "Podman 4.3": "podman",
    "Podman 4.3, rootless": "podman-rootless",
    "Podman 5.8": "podman58",
}
CONTAINER = "docker-container builder"
BUILDKIT: dict[str, tuple[str, str]] = {
    f"{name}, {output}": (engine, output)
    for name, engine in (
        ("Docker 20.10, BuildKit", "docker"),
        ("Docker 28, BuildKit", "docker28"),
        (CONTAINER, "docker28"),
    )
    for output in ("--load", "type=oci", "type=docker")
}
"""By source: the engine whose BuildKit builds the images with docker-buildx, and the output."""


@attrs.frozen
class Build:
    """How docker-buildx builds an image of a kind."""

    dockerfile: str = "FROM scratch\nCOPY base /\nCOPY app /\n"
    options: tuple[str, ...] = ()
    compression: str = ""
    """Of the layers in a file; an engine's copy has its own."""


BUILDS = {
    BUILT: Build(),
    "gzip layers": Build(compression="gzip"),
    "zstd layers": Build(compression="zstd"),
    "uncompressed layers": Build(compression="uncompressed"),
    NO_LAYERS: Build('FROM scratch\nCMD ["/app"]\n'),
    DEEP: Build("FROM scratch\n" + "".join(f"COPY app /{n}\n" for n in range(127))),
    SEVERAL: Build(options=("--platform=linux/amd64,linux/arm64", "--provenance=true")),
    "arm64/v8 only": Build(options=("--platform=linux/arm64/v8",)),
    UNTAGGED: Build(),
    PINNED: Build(),
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
SOURCES = (*ENGINES, *BUILDKIT, *SAVED_BY, FOLDER, *(f"standard input: {name}" for name in PIPED))
_DIFFERS = re.compile(r"(unix://|(?<!\S))/[^\s;:]+|:t[0-9a-f]{12}|(sha256:)?[0-9a-f]{12,}|\d{6,}")
_LISTED = re.compile(r"(\S*…), (\S*…, )*\S*…( and \d+ more)?")


def _made() -> dict[str, Made]:
    """Create an image of each kind, with unique names."""
    suffix, twice = secrets.token_hex(6), layer("twice.txt")
    names = {kind: f"compat-{re.sub('[^a-z0-9]+', '-', kind.lower())}:t{suffix}" for kind in KINDS}
    deep = tuple(layer(f"{number}.txt") for number in range(127))
    special: dict[str, Made] = {
        "gzip layers": Made(names["gzip layers"], compression="gzip"),
        "zstd layers": Made(names["zstd layers"], compression="zstd"),
        "an empty layer": Made(names["an empty layer"], (layer("base.txt"), EMPTY, layer())),
        "one layer twice": Made(names["one layer twice"], (twice, layer(), twice)),
        NO_LAYERS: Made(names[NO_LAYERS], ()),
        DEEP: Made(names[DEEP], deep, "gzip"),
        "a foreign layer": Made(names["a foreign layer"], compression="gzip", foreign=True),
        SEVERAL: Platforms(names[SEVERAL], compression="gzip"),
        "arm64/v8 only": Made(names["arm64/v8 only"], platform=ARM64),
        UNTAGGED: Made(""),
    }
    return {kind: special.get(kind) or Made(names[kind]) for kind in KINDS[1:]}


def expected(kind: str, made: Made, text: str = "") -> ExpectedImage:
    """Return how to request an image, and the expected result."""
    by_digest = f"{made.name.partition(':')[0]}@{Digest.of(made.manifest)}"
    requested = text or (by_digest if kind == PINNED else made.name or made.image_id)
    return ExpectedImage(kind, requested, made.image_id, made.chain_id, made.platform == ARM64)


@attrs.frozen
class Nodes:
    """The running nodes of a column, or its first one; `path` is a PATH with ssh's settings."""

    title: str
    running: Mapping[str, MatrixNode]
    path: str

    @property
    def column(self) -> Column:
        return COLUMNS[self.title]


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Nodes]:
    """Nodes that no other test uses."""
    title, most = request.param
    with open_folder() as folder:
        kinds = COLUMNS[title].kinds[:most]
        running = {kind.title: kind.make(lab, folder) for kind in kinds}
        yield Nodes(title, running, f"{folder / 'bin'}:{os.environ['PATH']}")
        for made in running.values():
            made.node.engine.remove_containers(made.node.name)


@attrs.frozen
class EngineImages:
    """The images of an engine: one that it built, and those that it loaded, in the background."""

    engine: Engine
    built: Future[str]
    refused: Future[dict[str, str]]

    def saved(self, *options: str) -> tuple[ExpectedImage, bytes]:
        """Return the expected result for the built image, and the archive that the engine saves."""
        name = self.built.result()
        archive = self.engine.raw("save", *options, name)
        return ExpectedImage(BUILT, name, *saved(archive)), archive


@attrs.define
class AllImages:
    """The images, and the engines that have them; removed after the last test."""

    lab: Lab
    folder: Path
    made: Mapping[str, Made] = attrs.field(factory=_made)
    other: Made = attrs.field(factory=lambda: Made(f"compat-other:t{secrets.token_hex(6)}"))
    by_engine: dict[str, EngineImages] = attrs.field(factory=dict)
    _by_source: dict[str, Images] = attrs.field(factory=dict)

    def of(self, name: str) -> Images:
        """Return the images of a source, which are made once."""
        if name not in self._by_source:
            self._by_source[name] = ROWS[name](self, name)
        return self._by_source[name]

    def fill(self, names: Iterable[str], pool: Executor) -> None:
        """Let these engines build and load images in parallel: 127 layers take a while."""
        engines = [self.lab.engine(name) for name in names]
        built = [pool.submit(_build, engine) for engine in engines]
        for engine, image in zip(engines, built, strict=True):
            loaded = pool.submit(self._load_all, engine)
            self.by_engine[engine.name] = EngineImages(engine, image, loaded)

    def clear(self) -> None:
        names = [made.name for made in (*self.made.values(), self.other) if made.name]
        for engine_images in self.by_engine.values():
            engine_images.engine.cli("rmi", "--force", engine_images.built.result(), *names)

    def _load_all(self, engine: Engine) -> dict[str, str]:
        """Load all images into an engine, the deep one separately; return its errors by kind."""
        kinds = [kind for kind in KINDS[1:] if kind != DEEP]
        return self._load(engine, kinds) | self._load(engine, [DEEP])

    def _load(self, engine: Engine, kinds: Sequence[str]) -> dict[str, str]:
        archive = pack(new([*(self.made[kind] for kind in kinds), self.other]))
        try:
            engine.cli("load", stdin=archive)
        except CommandError as error:
            if len(kinds) == 1:
                return {kinds[0]: str(error)}
            half = len(kinds) // 2
            return self._load(engine, kinds[:half]) | self._load(engine, kinds[half:])
        return {}

    def file(self, archive: bytes) -> str:
        path = self.folder / secrets.token_hex(4)
        path.write_bytes(archive)
        return str(path)


def _build(engine: Engine) -> str:
    """Build an image; return its name in the engine: Podman prepends ``localhost/``."""
    local = "localhost/" if engine.name.startswith("podman") else ""
    name = f"{local}compat-built:t{secrets.token_hex(6)}"
    files = [{"base.txt": secrets.token_bytes(40)}, {"app.txt": secrets.token_bytes(40)}]
    engine.build(name, layers=files, instructions=['CMD ["/app"]'])
    return name


def engine_of(source: str) -> str:
    """Return the name of the engine that has or saves the images of a source."""
    saved_by = {name: engine for name, (engine, _) in SAVED_BY.items()}
    buildkit = {name: engine for name, (engine, _) in BUILDKIT.items()}
    engines = {**ENGINES, **buildkit, **saved_by, FOLDER: "podman"}
    return engines[source.removeprefix("standard input: ")]


@pytest.fixture(scope="module")
def all_images(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AllImages]:
    """All images in the engines of the selected tests."""
    own = [item for item in request.session.items if item.path == request.path]
    sources = {item.callspec.params["name"] for item in own if hasattr(item, "callspec")}
    made = AllImages(lab, tmp_path_factory.mktemp("compatibility"))
    with ThreadPoolExecutor(len(ENGINES)) as pool:
        made.fill({engine_of(source) for source in sources}, pool)
        yield made
    made.clear()


def images_of_engine(all_images: AllImages, name: str) -> Images:
    """The image that an engine built, and the others that it accepted."""
    engine_images = all_images.by_engine[ENGINES[name]]
    built, _ = engine_images.saved()
    refused = engine_images.refused.result()
    requests = [
        expected(kind, made) for kind, made in all_images.made.items() if kind not in refused
    ]
    if engine_images.engine.has_containerd_store:
        manifest = str(Digest.of(all_images.made[UNTAGGED].manifest))
        requests = [
            attrs.evolve(request, text=manifest) if request.kind == UNTAGGED else request
            for request in requests
        ]
    alone = [request for request in requests if request.kind in {UNTAGGED, PINNED}]
    together = [built, *(request for request in requests if request not in alone)]
    batches = [
        Batch(engine_images.engine.url, tuple(group))
        for group in (together, *([request] for request in alone))
    ]
    return Images(batches, dict.fromkeys(refused, NOT_TAKEN), list(refused.items()))


def archives(all_images: AllImages, name: str) -> Iterator[tuple[bytes, tuple[ExpectedImage, ...]]]:
    """Yield an archive that an engine saved, and one of all other kinds, with the requests."""
    form, _, compression = name.partition(", ")
    engine, options = SAVED_BY[name]
    compress = COMPRESS.get(compression, bytes)
    built, archive = all_images.by_engine[engine].saved(*options)
    yield compress(archive), (built,)
    is_old = form == "docker-archive"
    images = {k: made for k, made in all_images.made.items() if not (k == SEVERAL and is_old)}
    content = compress(pack(FORMS[form]([*images.values(), all_images.other])))
    requests = [expected(kind, made) for kind, made in images.items()]
    alone = [request for request in requests if request.kind == PINNED and is_old]
    yield content, tuple(request for request in requests if request not in alone)
    if alone:
        yield content, tuple(alone)


def images_of_archives(all_images: AllImages, name: str) -> Images:
    """Archives as files; from the first one, all images without naming them."""
    return Images(
        [
            Batch(all_images.file(archive), requests, all=requests[0].kind == BUILT)
            for archive, requests in archives(all_images, name)
        ],
        {SEVERAL: ABSENT},
    )


def images_of_pipe(all_images: AllImages, name: str) -> Images:
    """Archives through a pipe."""
    form = name.partition(": ")[2]
    batches = [Batch("-", requests, archive) for archive, requests in archives(all_images, form)]
    return Images(batches, {SEVERAL: ABSENT})


def images_of_folder(all_images: AllImages, _name: str) -> Images:
    """OCI layout folders: one that Podman saved, and one of all other kinds."""
    engine_images, folder = all_images.by_engine["podman"], all_images.folder / "built"
    built, _ = engine_images.saved()
    engine_images.engine.cli("save", "--format", "oci-dir", "--output", folder, built.text)
    entries = oci([*all_images.made.values(), all_images.other])
    made = str(write_folder(all_images.folder / "made", entries))
    requests = tuple(expected(kind, image) for kind, image in all_images.made.items())
    return Images([Batch(str(folder), (built,), all=True), Batch(made, requests)])


def images_of_buildkit(all_images: AllImages, name: str) -> Images:
    """Images that docker-buildx builds into the engine, or into archives."""
    engine_name, output = BUILDKIT[name]
    buildx = Buildx.set_up(all_images.lab.engine(engine_name), all_images.folder / name)
    cells, refusals = dict.fromkeys(KINDS, ABSENT), defaultdict[str, list[str]](list)
    batches = []
    with buildx.builder("matrix") if name.startswith(CONTAINER) else nullcontext():
        for kind, build in BUILDS.items():
            if build.compression and output == "--load":
                continue
            try:
                batches.append(built_by_buildx(all_images, buildx, output, kind))
            except CommandError as error:
                cells[kind] = NOT_TAKEN
                lines = error.stderr.strip().splitlines()
                [*_, message] = [line for line in lines if line.startswith("ERROR:")] or lines
                refusals[message].append(kind)
    notes = [("" if kinds[1:] else kinds[0], error) for error, kinds in refusals.items()]
    return Images(batches, cells, notes)


def built_by_buildx(all_images: AllImages, buildx: Buildx, output: str, kind: str) -> Batch:
    """Build an image; return how to load it."""
    build, folder, in_engine = BUILDS[kind], all_images.folder, output == "--load"
    name, suffix = f"compat-buildkit:t{secrets.token_hex(6)}", secrets.token_hex(4)
    context, archive, metadata = (folder / f"{suffix}{end}" for end in ("", ".tar", ".json"))
    context.mkdir()
    for file in ("base", "app"):
        (context / file).write_bytes(secrets.token_bytes(40))
    (context / "Dockerfile").write_text(build.dockerfile)
    option = ["--load"] if in_engine else ["--output", f"{output},dest={archive}"]
    if build.compression:
        option[-1] += f",compression={build.compression},force-compression=true"
    tag = [] if kind == UNTAGGED else ["--tag", name]
    buildx("build", *tag, *option, f"--metadata-file={metadata}", *build.options, context)
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    if in_engine and kind == NO_LAYERS and buildx.engine.name == "docker":
        image_id, chain_id = digest, None  # this store cannot save such an image
    else:
        own_id = digest if kind == UNTAGGED else name
        content = buildx.engine.raw("save", own_id) if in_engine else archive.read_bytes()
        image_id, chain_id = saved(content)
    requested = {UNTAGGED: digest if in_engine else image_id, PINNED: f"compat-buildkit@{digest}"}
    image = ExpectedImage(
        kind, requested.get(kind, name), image_id, chain_id, emulated=kind == "arm64/v8 only"
    )
    source = buildx.engine.url if in_engine else str(archive)
    return Batch(source, (image,), all=not in_engine and kind not in requested)


ROWS: dict[str, Callable[[AllImages, str], Images]] = {
    **dict.fromkeys(ENGINES, images_of_engine),
    **dict.fromkeys(BUILDKIT, images_of_buildkit),
    **dict.fromkeys(SAVED_BY, images_of_archives),
    FOLDER: images_of_folder,
    **{f"standard input: {name}": images_of_pipe for name in PIPED},
}


EVERY_RUN = "Docker 28, containerd store"


def normalized(kind: str, message: str) -> str:
    """Return the last line of a message, without the parts that differ from run to run."""
    line = _LISTED.sub(r"\1, …", _DIFFERS.sub("…", message.strip().splitlines()[-1]))
    return f"{kind}: {line}" if kind else line


@pytest.mark.parametrize(
    "name", cases({n: n for n in [*SOURCES[len(ENGINES) :], *ENGINES]}, [EVERY_RUN])
)
@pytest.mark.parametrize(
    "nodes", cases({title: (title, None) for title in COLUMNS}, [CONTAINERD]), indirect=True
)
def test_each_source_loads_as_documented_into_each_kind_of_node(
    nodes: Nodes, all_images: AllImages, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results for all kinds of images are those in docs/compatibility.md."""
    monkeypatch.setenv("PATH", nodes.path)
    row = Row(list(nodes.running.values()))
    row.fill(all_images.of(name))
    versions, before = versions_of(nodes, all_images, name), Page.read()
    page = before.with_versions(versions)
    if nodes.title == CONTAINERD:
        cells = [row.cells[kind] for kind in KINDS]
        page = page.with_row(name, cells, [normalized(*note) for note in row.notes])
    else:
        cell = compared(row, nodes.column, page.results(name))
        page = page.with_nodes(name, nodes.title, cell)
    if writing():
        PAGE.write_text(page.text(SOURCES))
    assert page.rows == before.rows
    assert page.notes_of(name) == before.notes_of(name)


@pytest.mark.parametrize(
    ("nodes", "name"),
    [(("Docker", 1), "OCI archive"), (("CRI-O", 1), "docker-archive"), (("ssh", 1), FOLDER)],
    ids=["Docker", "CRI-O", "ssh"],
    indirect=["nodes"],
)
def test_a_source_loads_as_documented_into_the_first_node_of_a_kind(
    nodes: Nodes, all_images: AllImages, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the image of 127 layers, which takes longer than all others together."""
    monkeypatch.setenv("PATH", nodes.path)
    row, images = Row(list(nodes.running.values())), all_images.of(name)
    row.fill(attrs.evolve(images, batches=[batch.without(DEEP) for batch in images.batches]))
    compared(row, nodes.column, {k: r for k, r in Page.read().results(name).items() if k != DEEP})


def compared(row: Row, column: Column, on_containerd: Mapping[str, str]) -> str:
    """Return the page's cell for a row: the same results, except for the refusals of a column."""
    refused = {kind: e.kind for kind, e in refused_by(column, on_containerd).items()}
    assert row.cells == {**on_containerd, **dict.fromkeys(refused, REFUSED)}
    assert {kind: row.refused[kind] for kind in refused} == refused
    return cell_of(column, on_containerd)


def versions_of(nodes: Nodes, all_images: AllImages, name: str) -> dict[str, str]:
    """Return the versions of the nodes' runtimes, and of the engine if the source is one."""
    versions = {title: node.version for title, node in nodes.running.items()}
    if name in ENGINES:
        versions[name] = all_images.by_engine[ENGINES[name]].engine.version
    if name in BUILDKIT and not name.startswith(CONTAINER):
        engine = all_images.by_engine[engine_of(name)].engine
        buildx = Buildx(engine, all_images.folder / name)
        buildkit = re.search(r"(?im)^BuildKit.*: *(\S+)", buildx("inspect"))
        versions["docker-buildx"] = buildx("version").split()[1]
        reported = f"{buildkit[1]} in " if buildkit else ""
        versions[name.rpartition(",")[0]] = f"{reported}Docker {engine.version}"
    return versions


def test_the_page_contains_only_generated_text() -> None:
    """Each source has a row, each column a result, and nothing was added by hand."""
    page = Page.read()
    assert set(page.rows) == set(SOURCES)
    for name, cells in page.on_nodes.items():
        for title, cell in cells.items():
            assert cell == cell_of(COLUMNS[title], page.results(name)), (name, title)
    assert PAGE.read_text() == page.text(SOURCES)
