"""Odd archives and layouts at random: every dimension in which tools differ, combined."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import attrs
from backports import zstd

from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import ATTESTATION, CONFIG, IMAGE_NAME, INDEX, LAYER, MANIFEST, REF_NAME
from tests.unit.archives import Entry, Json, encode, index, pack

SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
_PADDED = "gzip, padded"
"""As tapes and block devices have archives; no tool writes such layers, and Go cannot read them."""
SQUEEZE: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": lambda raw: gzip.compress(raw, mtime=0),
    "gzip, two members": lambda raw: (
        gzip.compress(raw[:700], mtime=0) + gzip.compress(raw[700:], mtime=0)
    ),
    _PADDED: lambda raw: gzip.compress(raw, mtime=0) + bytes(512),
    "zstd": zstd.compress,
    "zstd, two frames": lambda raw: zstd.compress(raw[:700]) + zstd.compress(raw[700:]),
    "zstd, skippable frame first": lambda raw: SKIPPABLE + zstd.compress(raw),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
ONLY_DOCKER = {"bzip2", "xz"}
"""Compressions of layers that containerd does not know."""
FORMS = ("oci", "docker", "podman", "hybrid")
CONTAINERS = ("file", "pipe", "folder", "linked folder", "dir")
HALVES = (
    "empty layers",
    "null layers",
    "swapped layers",
    "too few layers",
    "not in the index",
    "not in manifest.json",
)
"""What is wrong with one half of a hybrid; the other is right."""
NAMINGS = ("containerd", "reference", "manifest.json", "tag", "repositories", "none", "impossible")
IMPOSSIBLE = (
    f"docker.io/library/app@sha256:{'0' * 64}",
    f"sha256:{'1' * 64}",
    f"moby-dangling@sha256:{'2' * 64}",
    "not a name:v1",
    "docker.io/UPPER/Case:v1",
)
WRONG = (
    "config size",
    "layer size",
    "manifest size",
    "layer type",
    "no layer type",
    "no manifest type",
    "Docker's types",
    "foreign layer type",
)
DAMAGE = ("layer", "config", "manifest", "lacks config", "lacks layer")
ONE_BLOB = ("empty", "the first layer's")
"""The blob that stands for all layers but the first (pack #2490)."""
PLATFORMS: dict[str, Json] = {
    "amd64": {"os": "linux", "architecture": "amd64"},
    "arm64": {"os": "linux", "architecture": "arm64", "variant": "v8"},
    "none": {},
    "no os": {"architecture": "amd64"},
    "features": {"os": "linux", "architecture": "amd64", "os.features": ["x"]},
}
AROUND = ("listed twice", "attested", "platforms absent", "listed above and below", "arm64 beside")
EXTRAS = (
    "artifact",
    "artifact with subject",
    "signature",
    "OCI artifact manifest",
    "schema 1",
    "unknown media type",
    "empty config",
    "dangling entry",
)
T = TypeVar("T", "Recipe", "OddImage")
V = TypeVar("V")
TAR_FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
EMPTY_LAYER = 99
BASE = 50
"""The number of the layer that a node may have."""
_MINE = 100


@cache
def files_of(seed: int, number: int) -> Mapping[str, bytes]:
    """Return the files of a layer; the layers of one seed have one file in common."""
    if number == EMPTY_LAYER:
        return {}
    rng = random.Random(f"{seed} {number}")
    own = {f"layer-{number}/{name}": rng.randbytes(rng.randrange(3000)) for name in ("a", "b/c")}
    return {**own, "common": rng.randbytes(40)}


@cache
def tar_of(seed: int, number: int) -> bytes:
    """Return a layer as an uncompressed tar."""
    return pack(files_of(seed, number).items(), tarfile.USTAR_FORMAT)


@attrs.frozen
class OddImage:
    """One image of a recipe; the defaults are a plain image."""

    number: int
    layers: tuple[int, ...] = (0, 1)
    platform: str = "amd64"
    naming: str = "containerd"
    name: str = ""
    compression: str = ""
    algorithm: str = "sha256"
    wrong: str = ""
    damage: str = ""
    nesting: int = 0
    around: tuple[str, ...] = ()
    base_on_node: bool = False
    one_blob: str = ""
    layers_on_node: bool = False

    @property
    def on_node(self) -> tuple[int, ...]:
        """The layers that the node has before the load."""
        return (BASE,) if self.base_on_node else self.layers if self.layers_on_node else ()


@attrs.frozen
class Recipe:
    """A reproducible odd archive; the defaults are a plain one."""

    seed: int
    images: tuple[OddImage, ...]
    form: str = "oci"
    container: str = "file"
    half: str = ""
    extras: tuple[str, ...] = ()
    archive: str = ""
    tar_format: int = tarfile.PAX_FORMAT
    dotted: bool = False
    index_first: bool = False
    artifact_named: bool = False
    links: bool = False
    junk: bool = False
    transport: str = "auto"

    @property
    def contradiction(self) -> str:
        """What is wrong with one half, if there are two."""
        return self.half if self.form == "hybrid" else ""

    @property
    def peer_view(self) -> Recipe:
        """The same images in a form that every peer reads: compressed by gzip at most."""
        plain = dict.fromkeys(ONLY_DOCKER, "gzip")
        images = (
            attrs.evolve(i, compression=plain.get(i.compression, i.compression))
            for i in self.images
        )
        return attrs.evolve(self, archive="", images=tuple(images))

    @property
    def built(self) -> list[Built]:
        """All images of the archive, also those for another platform."""
        own = [Built(self, image) for image in self.images]
        return [*own, *(b.beside for b in own if "arm64 beside" in b.image.around)]

    @property
    def possible_names(self) -> set[str]:
        """The names with which a pod can refer to an image."""
        return {image.name for image in self.images if image.naming != "impossible"}

    def simpler(self) -> Iterator[Recipe]:
        """Yield recipes with one oddity less."""
        for image in self.images if len(self.images) > 1 else ():
            yield attrs.evolve(self, images=tuple(i for i in self.images if i is not image))
        for extra in self.extras:
            yield attrs.evolve(self, extras=tuple(e for e in self.extras if e != extra))
        for field in attrs.fields(Recipe):
            is_odd = getattr(self, field.name) != field.default
            if is_odd and field.name not in {"seed", "images", "extras"}:
                yield _evolved(self, field)
        for at, image in enumerate(self.images):
            for field in attrs.fields(OddImage):
                if (
                    field.name not in {"number", "name"}
                    and getattr(image, field.name) != field.default
                ):
                    plain = _evolved(image, field)
                    yield attrs.evolve(
                        self, images=(*self.images[:at], plain, *self.images[at + 1 :])
                    )

    def __str__(self) -> str:
        images = "; ".join(_oddities(image, {"name"}) for image in self.images)
        return f"{_oddities(self, {'images'})} [{images}]"


def _evolved(value: T, field: attrs.Attribute[Any]) -> T:
    changes: dict[str, Any] = {field.name: field.default}
    return attrs.evolve(value, **changes)


def _oddities(value: Any, hidden: set[str]) -> str:
    texts = []
    for field in attrs.fields(type(value)):
        own = getattr(value, field.name)
        if field.name not in hidden and own != field.default:
            texts.append(f"{field.name}={own!r}")
    return f"{type(value).__name__}({', '.join(texts)})"


@attrs.frozen
class Dice:
    """Random choices of one seed; the plain value is the most frequent."""

    rng: random.Random

    def odd(self, chance: float, values: Iterable[V], plain: V) -> V:
        return self.rng.choice(list(values)) if self.rng.random() < chance else plain

    def some(self, chance: float, values: Iterable[V]) -> tuple[V, ...]:
        return tuple(value for value in values if self.rng.random() < chance)


def recipe(seed: int) -> Recipe:
    """Return the recipe of a seed."""
    dice = Dice(random.Random(seed))
    form = dice.rng.choice(FORMS)
    is_layout = form in {"oci", "hybrid"}
    images = tuple(_image(dice, seed, number, form) for number in range(dice.odd(0.5, (2, 3), 1)))
    container = dice.odd(0.5, CONTAINERS, "file")
    if container == "dir":
        form = "oci"
        images = (attrs.evolve(images[0], nesting=0, around=(), naming="none", algorithm="sha256"),)
    has_index = is_layout and container != "dir"
    return Recipe(
        seed,
        images,
        form=form,
        container=container,
        half=dice.odd(0.5, HALVES, "") if form == "hybrid" else "",
        extras=dice.some(0.12, EXTRAS) if has_index else (),
        archive=dice.odd(0.4, SQUEEZE, "") if container in {"file", "pipe"} else "",
        tar_format=dice.odd(0.5, TAR_FORMATS, tarfile.PAX_FORMAT),
        dotted=dice.odd(0.15, [True], plain=False),
        index_first=dice.odd(0.3, [True], plain=False),
        artifact_named=dice.odd(0.5, [True], plain=False),
        links=dice.odd(0.15, [True], plain=False),
        junk=dice.odd(0.15, [True], plain=False),
        transport=dice.odd(0.3, ("pull", "import", "archive"), "auto"),
    )


def _image(dice: Dice, seed: int, number: int, form: str) -> OddImage:
    is_layout = form in {"oci", "hybrid"}
    damage = dice.odd(0.1, DAMAGE, "")
    base_on_node = form == "oci" and not damage and dice.rng.random() < 0.12
    mine = _MINE + 10 * number
    shared = ((0, 1), (0, 1, 2), (0,), (0, 1, 0), (0, EMPTY_LAYER, mine), (mine,))
    layers: tuple[int, ...] = dice.rng.choice(shared)
    if damage or base_on_node:  # no other image has these layers
        layers = BASE if base_on_node else mine, mine + 1
    other = Dice(random.Random(f"{seed} {number} one blob"))  # an older seed has the same archive
    one_blob = "" if damage or base_on_node else other.odd(0.12, ONE_BLOB, "")
    if one_blob:
        layers = (mine, mine + 1, mine + 2)
    naming = dice.odd(0.5, NAMINGS, "containerd" if is_layout else "manifest.json")
    name = f"docker.io/library/odd{number}:s{seed}"
    return OddImage(
        number,
        layers,
        platform=dice.odd(0.2, PLATFORMS, "amd64"),
        naming=naming,
        name=dice.rng.choice(IMPOSSIBLE) if naming == "impossible" else name,
        compression=dice.odd(0.5, [name for name in SQUEEZE if name != _PADDED], ""),
        algorithm=dice.odd(0.05, ["sha512"], "sha256") if form == "oci" else "sha256",
        wrong=dice.odd(0.2, WRONG, "") if is_layout else "",
        damage=damage,
        nesting=dice.odd(0.25, (1, 2, 3), 0) if is_layout else 0,
        around=dice.some(0.1, AROUND) if is_layout else (),
        base_on_node=base_on_node,
        one_blob=one_blob,
        layers_on_node=one_blob != "" and other.odd(0.6, [True], plain=False),
    )


@attrs.define
class Archive:
    """The entries of the archive of a recipe."""

    recipe: Recipe
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    tops: list[Json] = attrs.field(factory=list)
    docker: list[Json] = attrs.field(factory=list)
    repositories: dict[str, dict[str, str]] = attrs.field(factory=dict)
    links: dict[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for image in self.recipe.images:
            built = Built(self.recipe, image)
            if self.recipe.form in {"oci", "hybrid"}:
                self._add_to_layout(built)
            if self.recipe.form != "oci":
                self._add_to_docker(built)
        for extra in self.recipe.extras:
            self._add_extra(extra)

    def put(self, raw: bytes, algorithm: str = "sha256", content: bytes | None = None) -> Json:
        """Add a blob, or other content under its digest; return its descriptor."""
        digest = Digest.of(raw, algorithm)
        self.blobs.setdefault(
            f"blobs/{algorithm}/{digest.hex}", raw if content is None else content
        )
        return {"digest": str(digest), "size": len(raw)}

    def _add_to_layout(self, built: Built) -> None:
        image = built.image
        for position, blob in enumerate(built.blobs):
            if position == 0 and (image.base_on_node or image.damage == "lacks layer"):
                continue
            is_damaged = position == 0 and image.damage == "layer"
            self.put(blob, image.algorithm, _flipped(blob) if is_damaged else None)
        if image.damage != "lacks config":
            damaged = built.config[:-9] if image.damage == "config" else None
            self.put(built.config, image.algorithm, damaged)
        manifest = built.manifest(self.recipe.contradiction)
        top = self.put(
            manifest, image.algorithm, manifest[:-9] if image.damage == "manifest" else None
        )
        if image.wrong == "manifest size":
            top["size"] += 7
        top |= {"mediaType": built.manifest_type}
        if "arm64 beside" in image.around or image.nesting:
            top["platform"] = PLATFORMS[image.platform] or PLATFORMS["amd64"]
        if self.recipe.contradiction == "not in the index":
            return
        names = built.annotations
        for level in range(image.nesting):
            inner = [top, *self._around(built, image.around if level == 0 else ())]
            top = {"mediaType": INDEX, **self.put(index(*inner))}
        beside = [] if image.nesting else self._around(built, image.around)
        if "listed above and below" in image.around and image.nesting:
            self.tops.append(
                {"mediaType": built.manifest_type, **self.put(manifest, image.algorithm)}
            )
        self.tops += [{**top, **({"annotations": names} if names else {})}, *beside]
        if "listed twice" in image.around:
            self.tops.append(self.tops[-1 - len(beside)])

    def _around(self, built: Built, around: tuple[str, ...]) -> list[Json]:
        entries: list[Json] = []
        if "attested" in around:
            statement = {"mediaType": "application/vnd.in-toto+json", **self.put(b'{"_type":"x"}')}
            config = {
                "mediaType": CONFIG,
                **self.put(
                    encode(
                        {
                            "architecture": "unknown",
                            "os": "unknown",
                            "config": {},
                            "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]},
                        }
                    )
                ),
            }
            manifest = self.put(
                encode(
                    {
                        "schemaVersion": 2,
                        "mediaType": MANIFEST,
                        "config": config,
                        "layers": [statement],
                    }
                )
            )
            about = {
                ATTESTATION: "attestation-manifest",
                "vnd.docker.reference.digest": str(Digest.of(built.manifest(""))),
            }
            unknown = {"os": "unknown", "architecture": "unknown"}
            entries.append(
                {"mediaType": MANIFEST, **manifest, "platform": unknown, "annotations": about}
            )
        if "platforms absent" in around:
            for architecture in ("s390x", "ppc64le"):
                digest = str(Digest.of(f"{architecture} {built.image.number}".encode()))
                platform = {"os": "linux", "architecture": architecture}
                entries.append(
                    {"mediaType": MANIFEST, "digest": digest, "size": 500, "platform": platform}
                )
        if "arm64 beside" in around:
            other = built.beside
            for raw in (*other.blobs, other.config):
                self.put(raw, other.image.algorithm)
            entries.append(
                {
                    "mediaType": MANIFEST,
                    **self.put(other.manifest(""), other.image.algorithm),
                    "platform": PLATFORMS["arm64"],
                }
            )
        return entries

    def _add_to_docker(self, built: Built) -> None:
        image, paths = built.image, []
        is_hybrid = self.recipe.form == "hybrid"
        legacy = ""
        for position, blob in enumerate(built.blobs):
            hexdigest = Digest.of(blob).hex
            if is_hybrid:
                path = f"blobs/sha256/{hexdigest}"
            elif self.recipe.form == "podman":
                path = f"{built.diff_ids[position].hex}.tar"
            else:
                first = built.blobs.index(blob) if image.one_blob else position
                legacy = Digest.of(f"{built.image_id} {first}".encode()).hex
                path = f"{legacy}/layer.tar"
            paths.append(path)
            if position == 0 and image.damage == "lacks layer":
                continue
            self.blobs.setdefault(
                path, _flipped(blob) if position == 0 and image.damage == "layer" else blob
            )
        hexdigest = built.image_id.hex
        config = f"blobs/sha256/{hexdigest}" if is_hybrid else f"{hexdigest}.json"
        if image.damage != "lacks config":
            self.blobs.setdefault(
                config, built.config[:-9] if image.damage == "config" else built.config
            )
        if self.recipe.contradiction == "not in manifest.json":
            return
        names = [image.name] if image.naming in {"manifest.json", "impossible"} else []
        if is_hybrid and image.naming == "containerd" and image.number % 2:
            names = [image.name]
        self.docker.append({"Config": config, "RepoTags": names or None, "Layers": paths})
        if image.naming == "repositories" and legacy:
            name, _, tag = image.name.rpartition(":")
            self.repositories.setdefault(name, {})[tag] = legacy

    def _add_extra(self, extra: str) -> None:
        if extra == "dangling entry":
            self.tops.append({"mediaType": MANIFEST, "digest": f"sha256:{'d' * 64}", "size": 300})
            return
        text = {"mediaType": "text/plain", **self.put(b"notes")}
        config = {"mediaType": "application/vnd.oci.empty.v1+json", **self.put(b"{}")}
        value: Json = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [text],
        }
        kind = MANIFEST
        if extra == "artifact":
            value["artifactType"] = "application/vnd.example"
        elif extra == "artifact with subject":
            subject = {"mediaType": MANIFEST, "digest": f"sha256:{'e' * 64}", "size": 7}
            value |= {"artifactType": "application/vnd.example", "subject": subject}
        elif extra == "signature":
            simple = {
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                **self.put(b'{"critical":1}'),
            }
            rootfs = {"type": "layers", "diff_ids": [simple["digest"]]}
            signed = encode({"architecture": "", "os": "", "config": {}, "rootfs": rootfs})
            value |= {"config": {"mediaType": CONFIG, **self.put(signed)}, "layers": [simple]}
        elif extra == "OCI artifact manifest":
            kind = "application/vnd.oci.artifact.manifest.v1+json"
            value = {"mediaType": kind, "artifactType": "application/vnd.example", "blobs": [text]}
        elif extra == "schema 1":
            kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
            value = {"schemaVersion": 1, "name": "old", "tag": "v1", "fsLayers": [], "history": []}
        elif extra == "unknown media type":
            kind = "application/vnd.example.unknown"
            value = {"anything": [1]}
        name = f"docker.io/library/extra-{extra.lower().replace(' ', '-')}:s{self.recipe.seed}"
        names = {"annotations": {IMAGE_NAME: name}} if self.recipe.artifact_named else {}
        self.tops.append({"mediaType": kind, **self.put(encode(value)), **names})

    @property
    def entries(self) -> list[Entry]:
        """The members, in order."""
        if self.recipe.container == "dir":
            return self._directory()
        documents: list[Entry] = []
        if self.recipe.form in {"oci", "hybrid"}:
            documents += [
                ("index.json", index(*self.tops)),
                ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ]
        if self.recipe.form != "oci":
            documents.append(("manifest.json", encode(self.docker)))
            if self.repositories:
                documents.append(("repositories", encode(self.repositories)))
        blobs: list[Entry] = list(self.blobs.items())
        if self.recipe.junk:
            blobs += [(".DS_Store", b"\0\1"), ("blobs/README", b"{"), ("notes.json", b"[1")]
        if self.recipe.links and self.recipe.container in {"file", "pipe"}:
            blobs = list(_linked(blobs))
        return [*documents, *blobs] if self.recipe.index_first else [*blobs, *documents]

    def _directory(self) -> list[Entry]:
        """Return the members of skopeo's dir: transport."""
        built = Built(self.recipe, self.recipe.images[0])
        entries: list[Entry] = [(path.rpartition("/")[2], raw) for path, raw in self.blobs.items()]
        manifest = built.manifest("")
        raw = manifest[:-9] if built.image.damage == "manifest" else manifest
        return [
            ("manifest.json", raw),
            ("version", b"Directory Transport Version: 1.1\n"),
            *entries,
        ]

    def tar(self) -> bytes:
        """Return the archive as a compressed tar."""
        entries = self.entries
        if self.recipe.dotted:
            entries = [(f"./{path}", content) for path, content in entries]
        return SQUEEZE[self.recipe.archive](pack(entries, self.recipe.tar_format))

    def write(self, folder: Path) -> Path:
        """Write a file, or a folder with links if the recipe says so; return its path."""
        if self.recipe.container in {"file", "pipe"}:
            (folder / "images").write_bytes(self.tar())
            return folder / "images"
        root = folder / "layout"
        for path, content in self.entries:
            assert isinstance(content, bytes)
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.recipe.container == "linked folder":
                stored = root / "cache" / path
                stored.parent.mkdir(parents=True, exist_ok=True)
                stored.write_bytes(content)
                target.symlink_to(os.path.relpath(stored, target.parent))
            else:
                target.write_bytes(content)
        return root


@attrs.frozen
class Built:
    """The documents and layers of one image."""

    recipe: Recipe
    image: OddImage

    @property
    def beside(self) -> Built:
        """The image for arm64 in the same index."""
        plain = attrs.evolve(self.image, platform="arm64", wrong="", damage="")
        return Built(self.recipe, attrs.evolve(plain, number=self.image.number + 50))

    @property
    def tars(self) -> list[bytes]:
        return [tar_of(self.recipe.seed, number) for number in self.image.layers]

    @property
    def files(self) -> dict[str, bytes]:
        """The files of a container made from the image."""
        files: dict[str, bytes] = {}
        for number in self.image.layers:
            files |= files_of(self.recipe.seed, number)
        return files

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return tuple(map(Digest.of, self.tars))

    @property
    def chain_id(self) -> str:
        """The key of its snapshot on a node."""
        return str(chain_ids(self.diff_ids)[-1])

    @property
    def config(self) -> bytes:
        rootfs = {"type": "layers", "diff_ids": list(map(str, self.diff_ids))}
        own = {"Cmd": ["/app"], "Labels": {"odd": f"{self.recipe.seed} {self.image.number}"}}
        return encode({**PLATFORMS[self.image.platform], "config": own, "rootfs": rootfs})

    @property
    def image_id(self) -> Digest:
        return Digest.of(self.config)

    @property
    def blobs(self) -> list[bytes]:
        first, *others = [SQUEEZE[self.image.compression](raw) for raw in self.tars]
        one = {"empty": SQUEEZE[self.image.compression](b""), "the first layer's": first}
        return [first, *([one.get(self.image.one_blob, blob) for blob in others])]

    @property
    def manifest_type(self) -> str:
        docker = "application/vnd.docker.distribution.manifest.v2+json"
        return docker if self.image.wrong == "Docker's types" else MANIFEST

    def manifest(self, half: str) -> bytes:
        """Return its manifest, which a half may contradict."""
        wrong, algorithm = self.image.wrong, self.image.algorithm
        layers: list[Json] | None = [
            {
                "mediaType": self._layer_type(),
                "digest": str(Digest.of(blob, algorithm)),
                "size": len(blob),
            }
            for blob in self.blobs
        ]
        assert layers is not None
        if wrong == "no layer type":
            for layer in layers:
                del layer["mediaType"]
        if wrong == "layer size":
            layers[-1]["size"] += 5
        size = len(self.config) + (5 if wrong == "config size" else 0)
        kind = CONFIG
        if wrong == "Docker's types":
            kind = "application/vnd.docker.container.image.v1+json"
        config = {"mediaType": kind, "digest": str(Digest.of(self.config, algorithm)), "size": size}
        changed = {
            "empty layers": [],
            "null layers": None,
            "swapped layers": layers[::-1],
            "too few layers": layers[1:],
        }
        layers = changed.get(half, layers)
        named = {} if wrong == "no manifest type" else {"mediaType": self.manifest_type}
        return json.dumps(
            {"schemaVersion": 2, **named, "config": config, "layers": layers}
        ).encode()

    def _layer_type(self) -> str:
        wrong, form = self.image.wrong, self.image.compression.partition(",")[0]
        if wrong == "Docker's types":
            return "application/vnd.docker.image.rootfs.diff.tar.gzip"
        if wrong == "foreign layer type":
            return "application/vnd.oci.image.layer.nondistributable.v1.tar" + (
                f"+{form}" if form else ""
            )
        if wrong == "layer type":
            return LAYER if form else f"{LAYER}+gzip"
        return f"{LAYER}+{form}" if form else LAYER

    @property
    def annotations(self) -> Json:
        """The annotations of its entry in index.json."""
        image = self.image
        tag = image.name.rpartition(":")[2]
        named: dict[str, Json] = {
            "containerd": {IMAGE_NAME: image.name, REF_NAME: tag},
            "reference": {REF_NAME: image.name},
            "tag": {REF_NAME: tag},
            "impossible": {IMAGE_NAME: image.name},
        }
        return named.get(image.naming, {})

    @property
    def has_name(self) -> bool:
        """Whether the archive gives the image a name that a pod can use."""
        image, form = self.image, self.recipe.form
        if self.recipe.container == "dir":
            return False
        if image.naming in {"containerd", "reference"}:
            return form in {"oci", "hybrid"} and self.recipe.contradiction != "not in the index"
        in_docker = form != "oci" and self.recipe.contradiction != "not in manifest.json"
        return image.naming == "manifest.json" and in_docker

    @property
    def is_sound(self) -> bool:
        """Whether the image can be loaded onto a node of amd64."""
        image = self.image
        if image.platform == "arm64":
            return False
        if image.damage == "manifest":
            return self.recipe.form in {"docker", "podman"}
        return not image.damage and (not image.one_blob or image.layers_on_node)


def _linked(blobs: Iterable[Entry]) -> Iterator[Entry]:
    """Yield every blob under another path, and a symbolic link to it under its own."""
    for number, (path, content) in enumerate(blobs):
        yield f"stored/{number}", content
        yield path, f"{'../' * path.count('/')}stored/{number}"


def base_image(seed: int, layers: tuple[int, ...]) -> bytes:
    """Return an archive with an image of layers that a node has before the load."""
    name = f"docker.io/library/base:s{seed}-{layers[0]}"
    image = OddImage(900 + layers[0], layers, name=name)
    return Archive(Recipe(seed, (image,))).tar()


def _flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :]
