"""Images and surveys to plan with."""

from collections.abc import Mapping

import attrs

from imgload.clusters.nodes.containerd import Content
from imgload.clusters.nodes.cri import CriAnswer
from imgload.clusters.nodes.survey import Survey, Traits
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.image import Image
from imgload.oci.platform import Platform
from tests.unit import archives

TRAITS = Traits((2, 1), "overlayfs", Platform("linux", "amd64"), 1 << 40)
NOTHING = Survey(TRAITS, {}, Content(), frozenset(), {}, {})


def image(content: str = "app", name: str = archives.NAME, source: str = "docker") -> Image:
    """Return an image with one layer of its own."""
    packed = archives.Image((archives.layer("base"), archives.layer(content)))
    config = ImageConfig.parse(packed.config)
    return Image(name, config.digest, config.digest, config.diff_ids, config.platform, 100, source)


def config_of(content: str = "app") -> ImageConfig:
    """Return the config of the image that `image` returns."""
    packed = archives.Image((archives.layer("base"), archives.layer(content)))
    return ImageConfig.parse(packed.config)


def holding(content: str = "app", *names: str, cri: Mapping[str, str] | None = None) -> Survey:
    """Return the survey of a node that holds an image whole under the names given.

    Args:
        content: which image.
        names: its records; NAME where none is given.
        cri: what CRI says each name is, by content; empty for a node without crictl.

    """
    config = config_of(content)
    manifest = Digest.of(b"manifest of " + config.raw)
    assert config.chain_id
    return Survey(
        traits=TRAITS,
        records=dict.fromkeys(names or (archives.NAME,), manifest),
        content=Content(frozenset([manifest, config.digest]), {manifest: config.digest}),
        snapshots=frozenset([config.chain_id]),
        configs={config.digest: config},
        cri={n: CriAnswer(config_of(c).digest if c else None) for n, c in (cri or {}).items()},
    )


def lacking(survey: Survey, what: str) -> Survey:
    """Return the survey of a node that lacks one thing of its image."""
    wrong: dict[str, Survey] = {
        "name": attrs.evolve(survey, records={}),
        "image_id": attrs.evolve(survey, content=Content()),
        "config": attrs.evolve(survey, configs={}),
        "snapshot": attrs.evolve(survey, snapshots=frozenset()),
        "cri": attrs.evolve(survey, cri={archives.NAME: CriAnswer(None)}),
        "cri's label": attrs.evolve(survey, unseen=frozenset([archives.NAME])),
        "cri's agreement": attrs.evolve(
            survey, cri={archives.NAME: CriAnswer(Digest.of(b"another"))}
        ),
    }
    return wrong[what]
