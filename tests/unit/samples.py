"""Sample images and surveys."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import attrs

from imgload.clusters.nodes.containerd import ContentStore, CriAnswer
from imgload.clusters.nodes.survey import NodeTraits, Survey
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.platform import Platform
from imgload.sources.base import Image, Source
from tests.unit import archives

TRAITS = NodeTraits((2, 1), "overlayfs", Platform("linux", "amd64"), 1 << 40)
BASE = Digest.of(archives.layer("base"))
NOTHING = Survey(TRAITS, {}, ContentStore(), frozenset(), {}, {})


class Shelf(Source):
    """A source with the given images by name."""

    def __init__(
        self, name: str, images: Mapping[str, Image] | None = None, address: str = ""
    ) -> None:
        self.name = name
        self.address = address or f"unix:///run/{name}.sock"
        self.describe = f"{name} at {self.address}"
        self.listing = f"{name} images"
        self.images = images or {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shelf) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def find(self, text: str, platform: Platform | None) -> Image | None:
        del platform
        image = self.images.get(text)
        return image and attrs.evolve(image, origin=self)

    def save(self, images: Sequence[Image]) -> AbstractContextManager[Iterator[bytes]]:
        return nullcontext(image.id.encode() for image in images)


def sourced(
    name: str, image_id: Digest, diff_ids: tuple[Digest, ...] = (), origin: Source | None = None
) -> Image:
    """Return an image with one name, from a source that reports the image ID."""
    platform = Platform("linux", "amd64")
    source = origin or Shelf("docker")
    return Image(
        source, str(image_id), (name,), image_id, image_id, platform, diff_ids, 100, name=name
    )


def image(content: str = "app", name: str = archives.NAME, source: str = "docker") -> Image:
    """Return an image with a base layer and its own layer."""
    packed = archives.Image((archives.layer("base"), archives.layer(content)))
    config = ImageConfig.parse(packed.config)
    return sourced(name, config.digest, config.diff_ids, Shelf(source))


def config_of(content: str = "app") -> ImageConfig:
    """Return the config of the image that `image` returns."""
    packed = archives.Image((archives.layer("base"), archives.layer(content)))
    return ImageConfig.parse(packed.config)


def holding(content: str = "app", *names: str, cri: Mapping[str, str] | None = None) -> Survey:
    """Return the survey of a node that has a complete image with these names.

    Args:
        content: content of the image.
        names: names of its records; NAME by default.
        cri: CRI's image for each name, by content; empty for a node without crictl.

    """
    config = config_of(content)
    manifest = Digest.of(b"manifest of " + config.raw)
    assert config.chain_id
    return Survey(
        traits=TRAITS,
        records=dict.fromkeys(names or (archives.NAME,), manifest),
        content=ContentStore(
            frozenset([manifest, config.digest, *config.diff_ids]),
            {manifest: config.digest},
            layers={manifest: config.diff_ids},
        ),
        snapshots=frozenset([config.chain_id]),
        configs={config.digest: config},
        cri={n: CriAnswer(config_of(c).digest if c else None) for n, c in (cri or {}).items()},
    )


def lacking(survey: Survey, part: str) -> Survey:
    """Return the survey of a node that lacks one part of its image."""
    wrong: dict[str, Survey] = {
        "name": attrs.evolve(survey, records={}),
        "image_id": attrs.evolve(survey, content=ContentStore()),
        "config": attrs.evolve(survey, configs={}),
        "blob": attrs.evolve(
            survey,
            content=attrs.evolve(survey.content, blobs=survey.content.blobs - {BASE}),
        ),
        "layers": attrs.evolve(
            survey,
            content=attrs.evolve(survey.content, layers=dict.fromkeys(survey.content.layers, ())),
        ),
        "snapshot": attrs.evolve(survey, snapshots=frozenset()),
        "cri": attrs.evolve(survey, cri={archives.NAME: CriAnswer(None)}),
        "cri's label": attrs.evolve(survey, not_in_cri=frozenset([archives.NAME])),
        "cri's agreement": attrs.evolve(
            survey, cri={archives.NAME: CriAnswer(Digest.of(b"another"))}
        ),
    }
    return wrong[part]
