"""The matrix of docs/compatibility.md: every source, kind of image and containerd version."""

from __future__ import annotations

import gzip
import json
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
from tests.engine.kinds import ARM64, EMPTY, Made, Platforms, layer, new, oci, old, saved
from tests.engine.matrix import (
    VERSIONS,
    Batch,
    CrioMatrixNode,
    ExpectedImage,
    MatrixNode,
    Row,
)
from tests.engine.page import PAGE, Page, writing
from tests.lab import Lab
from tests.lab.builder import Buildx
from tests.lab.engine import Engine
from tests.lab.nodeimage import CRIO
from tests.lab.shell import CommandError
from tests.unit.archives import pack, write_folder

BUILT, NO_LAYERS, DEEP, SEVERAL, UNTAGGED, PINNED = (
    "built by an engine",
    "no layers",
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
    NO_LAYERS,
    DEEP,
    "a foreign layer",
    SEVERAL,
    "arm64/v8 only",
    UNTAGGED,
    PINNED,
)
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


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> Iterator[list[MatrixNode]]:
    """Nodes that no other test uses."""
    suffix = secrets.token_hex(3)
    names = {version: f"lab-compat-{version.replace('.', '')}-{suffix}" for version in VERSIONS}
    made = [MatrixNode.make(lab, version, name) for version, name in names.items()]
    yield made
    for node in made:
        node.node.engine.remove_containers(node.node.name)


@pytest.fixture(scope="module")
def crio_nodes(lab: Lab) -> Iterator[list[CrioMatrixNode]]:
    """Nodes with CRI-O's store that no other test uses."""
    suffix = secrets.token_hex(3)
    made = [CrioMatrixNode.make(lab, version, f"{version}-{suffix}") for version in CRIO]
    yield made
    for node in made:
        node.node.engine.remove_containers(node.node.name)


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
    calls = (getattr(item, "callspec", None) for item in request.session.items)
    sources = {call.params.get("name") for call in calls if call} & set(SOURCES)
    made = AllImages(lab, tmp_path_factory.mktemp("compatibility"))
    with ThreadPoolExecutor(len(ENGINES)) as pool:
        made.fill({engine_of(source) for source in sources}, pool)
        yield made
    made.clear()


def engine_row(all_images: AllImages, row: Row, name: str) -> None:
    """Load the image that an engine built, and the others that it accepted."""
    engine_images = all_images.by_engine[ENGINES[name]]
    built, _ = engine_images.saved()
    refused = engine_images.refused.result()
    row.cells |= dict.fromkeys(refused, "not taken")
    row.notes += refused.items()
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
    row.fill(
        [
            Batch(engine_images.engine.url, tuple(group))
            for group in (together, *([request] for request in alone))
        ]
    )


def archives(
    all_images: AllImages, row: Row, name: str
) -> Iterator[tuple[bytes, tuple[ExpectedImage, ...]]]:
    """Yield an archive that an engine saved, and one of all other kinds, with the requests."""
    form, _, compression = name.partition(", ")
    engine, options = SAVED_BY[name]
    compress = COMPRESS.get(compression, bytes)
    built, archive = all_images.by_engine[engine].saved(*options)
    yield compress(archive), (built,)
    kinds = [kind for kind in KINDS[1:] if not (kind == SEVERAL and form == "docker-archive")]
    if SEVERAL not in kinds:
        row.cells[SEVERAL] = "no such archive"
    images = {kind: all_images.made[kind] for kind in kinds}
    content = compress(pack(FORMS[form]([*images.values(), all_images.other])))
    requests = [expected(kind, made) for kind, made in images.items()]
    alone = [request for request in requests if request.kind == PINNED and form == "docker-archive"]
    yield content, tuple(request for request in requests if request not in alone)
    if alone:
        yield content, tuple(alone)


def archive_row(all_images: AllImages, row: Row, name: str) -> None:
    """Load the archives as files; from the first one, all images without naming them."""
    row.fill(
        [
            Batch(all_images.file(archive), requests, all=requests[0].kind == BUILT)
            for archive, requests in archives(all_images, row, name)
        ]
    )


def pipe_row(all_images: AllImages, row: Row, name: str) -> None:
    """Load the archives through a pipe."""
    form = name.partition(": ")[2]
    row.fill(
        [Batch("-", requests, archive) for archive, requests in archives(all_images, row, form)]
    )


def folder_row(all_images: AllImages, row: Row, _name: str) -> None:
    """Load OCI layout folders: one that Podman saved, and one of all other kinds."""
    engine_images, folder = all_images.by_engine["podman"], all_images.folder / "built"
    built, _ = engine_images.saved()
    engine_images.engine.cli("save", "--format", "oci-dir", "--output", folder, built.text)
    entries = oci([*all_images.made.values(), all_images.other])
    made = str(write_folder(all_images.folder / "made", entries))
    requests = tuple(expected(kind, image) for kind, image in all_images.made.items())
    row.fill([Batch(str(folder), (built,), all=True), Batch(made, requests)])


def buildkit_row(all_images: AllImages, row: Row, name: str) -> None:
    """Build images with docker-buildx, and load them from the engine or from the archives."""
    engine_name, output = BUILDKIT[name]
    buildx = Buildx.set_up(all_images.lab.engine(engine_name), all_images.folder / name)
    row.cells |= dict.fromkeys(KINDS, "not built")
    batches, refusals = [], defaultdict[str, list[str]](list)
    with buildx.builder("matrix") if name.startswith(CONTAINER) else nullcontext():
        for kind, build in BUILDS.items():
            if build.compression and output == "--load":
                continue
            try:
                batches.append(built_by_buildx(all_images, buildx, output, kind))
            except CommandError as error:
                row.cells[kind] = "not taken"
                lines = error.stderr.strip().splitlines()
                [*_, message] = [line for line in lines if line.startswith("ERROR:")] or lines
                refusals[message].append(kind)
        row.fill(batches)
    row.notes += [("" if kinds[1:] else kinds[0], error) for error, kinds in refusals.items()]


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


ROWS: dict[str, Callable[[AllImages, Row, str], None]] = {
    **dict.fromkeys(ENGINES, engine_row),
    **dict.fromkeys(BUILDKIT, buildkit_row),
    **dict.fromkeys(SAVED_BY, archive_row),
    FOLDER: folder_row,
    **{f"standard input: {name}": pipe_row for name in PIPED},
}


def normalized(kind: str, message: str) -> str:
    """Return the last line of a message, without the parts that differ from run to run."""
    line = _LISTED.sub(r"\1, …", _DIFFERS.sub("…", message.strip().splitlines()[-1]))
    return f"{kind}: {line}" if kind else line


@pytest.mark.parametrize("name", [*SOURCES[len(ENGINES) :], *ENGINES])
def test_each_source_loads_as_documented_on_every_containerd(
    nodes: list[MatrixNode], all_images: AllImages, name: str
) -> None:
    """The results for all kinds of images are those in docs/compatibility.md."""
    row = Row(nodes)
    ROWS[name](all_images, row, name)
    cells = [row.cells[kind] for kind in KINDS]
    notes = [normalized(*note) for note in row.notes]
    before = Page.read()
    if writing():
        versions = {**before.versions, **versions_of(nodes, all_images, name)}
        page = attrs.evolve(before, columns=KINDS, versions=versions).with_row(name, cells, notes)
        PAGE.write_text(page.text(SOURCES))
    assert dict(zip(before.columns, before.rows.get(name, ()), strict=False)) == dict(
        zip(KINDS, cells, strict=True)
    )
    assert before.notes_of(name) == notes


@pytest.mark.long
@pytest.mark.parametrize("name", SOURCES)
def test_each_source_loads_as_documented_into_crio(
    crio_nodes: list[CrioMatrixNode], all_images: AllImages, name: str
) -> None:
    """The results are the same as on nodes with containerd."""
    row = Row(crio_nodes)
    ROWS[name](all_images, row, name)
    page = Page.read()
    assert row.cells == dict(zip(page.columns, page.rows[name], strict=True))


def versions_of(nodes: list[MatrixNode], all_images: AllImages, name: str) -> dict[str, str]:
    """Return the versions of containerd on the nodes, and of the engine if the source is one."""
    versions = {f"containerd {node.version}": node.containerd for node in nodes}
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
    """Each source has a row, and nothing was added by hand."""
    assert set(Page.read().rows) == set(SOURCES)
    assert PAGE.read_text() == Page.read().text(SOURCES)
