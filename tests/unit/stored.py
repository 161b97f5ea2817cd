"""An engine that identifies images by manifest, like Docker's containerd store, and a node."""

import http.client
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import ContentStore, CriAnswer
from imgload.clusters.nodes.node import Commands, Node
from imgload.clusters.nodes.survey import NodeTraits, Survey, SurveyQuery
from imgload.core.errors import EngineFailed, NodeUnusable
from imgload.engines.base import Chunk, EngineImage
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.platform import Platform
from tests.unit.archives import NAME, Image
from tests.unit.fakes import RUNNING, LocalEngine

AMD = Platform("linux", "amd64")
EMPTY = Survey(
    NodeTraits((2, 1), "overlayfs", AMD, 1 << 40), {}, ContentStore(), frozenset(), {}, {}
)


def loaded(image: Image, manifest: Digest) -> Survey:
    """Return the survey of a node that has the image with this manifest."""
    config = ImageConfig.parse(image.config)
    return attrs.evolve(
        EMPTY,
        records={NAME: manifest},
        content=ContentStore(frozenset({manifest, config.digest}), {manifest: config.digest}),
        snapshots=frozenset({config.chain_id} if config.chain_id else ()),
        configs={config.digest: config},
        cri={NAME: CriAnswer(config.digest)},
    )


class StoredEngine(LocalEngine):
    """An engine with one image, ``app:v1``; `given` are the current temporary tags of pushes."""

    def __init__(self, folder: Path, image: Image, manifest: bytes = b"") -> None:
        self.image, self.raw, self.given = image, manifest or image.manifest, set[str]()
        self.held = EngineImage(
            target=Digest.of(self.raw),
            image_id=None,
            names=("app:v1",),
            platform=AMD,
            diff_ids=tuple(map(Digest.of, image.layers)),
            size=100,
        )
        super().__init__(folder, images=dict.fromkeys(["app:v1", str(self.held.target)], self.held))

    @contextmanager
    def pushing(self, image: Digest, repository: str) -> Iterator[Callable[[], None]]:
        """Add a temporary tag, and remove it at the end."""
        del image
        self.given.add(repository)
        try:
            yield lambda: self.push(repository)
        finally:
            self.given.discard(repository)

    def push(self, repository: str) -> None:
        """Push the blobs that the receiver lacks, and then the manifest."""
        host, _, path = repository.partition("/")
        for blob in (*self.image.blobs, self.image.config):
            digest = Digest.of(blob)
            if _ask(host, "HEAD", f"/v2/{path}/blobs/{digest}")[0] == http.HTTPStatus.NOT_FOUND:
                _, place = _ask(host, "POST", f"/v2/{path}/blobs/uploads/")
                _ask(host, "PUT", f"{place}?digest={digest}", blob)
        status, _ = _ask(host, "PUT", f"/v2/{path}/manifests/0123", self.raw)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise EngineFailed(f"pushing failed: {status}")

    def look_up(self, repository: str) -> None:
        """Request a missing image."""
        host, _, path = repository.partition("/")
        _ask(host, "HEAD", f"/v2/{path}/manifests/none")

    def layer_sizes(self, image: Digest) -> list[int]:
        """Return no sizes: the config has no history, as with ko and Bazel."""
        del image
        return []


class StoredNode(Node):
    """A node with a fixed survey that accepts every import."""

    def __init__(self, engine: StoredEngine, now: Survey = EMPTY) -> None:
        super().__init__("n1", engine, RUNNING)
        self.now, self.asked = now, 0
        self.after = loaded(engine.image, engine.held.target)

    def survey(self, question: SurveyQuery) -> Survey:
        """Return the current survey."""
        del question
        self.asked += 1
        return self.now

    def run_for_snapshotter(self, commands: Commands) -> tuple[NodeTraits, list[Output]]:
        """Run no commands: a ctr on this machine would wait for its containerd."""
        del commands
        raise NodeUnusable("this node runs no commands")

    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        """Set no labels."""

    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery
    ) -> Survey:
        """Read the whole layout."""
        del platform, question
        for _ in layout:
            pass
        self.now = self.after
        self._last = self.now
        return self.now


def annotated(manifest: bytes) -> bytes:
    """Return another manifest of the same image, as after a rebuild with other provenance."""
    return json.dumps({**json.loads(manifest), "annotations": {"built": "again"}}).encode()


def _ask(host: str, method: str, path: str, body: bytes = b"") -> tuple[int, str | None]:
    connection = http.client.HTTPConnection(host)
    connection.request(method, path, body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers.get("Location")
