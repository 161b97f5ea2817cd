"""Who is measured: the real kind, and imgload."""

import json
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path

import attrs

from benchmarks.images import Builder, Image
from benchmarks.measure import Failed, Usage, environment, measure
from benchmarks.nodes import check, forget
from tests.lab import Cluster, Engine, Lab
from tests.lab.kind import VERSIONS

_PROBE = 1 << 10


@attrs.frozen
class Sample:
    """One load: what it used, and what imgload says it did and sent (bytes, to all nodes)."""

    usage: Usage
    action: str | None = None
    sent: int | None = None


@attrs.frozen
class Contestant(ABC):
    """A command that loads an image into a cluster."""

    engine: Engine
    folder: Path

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in the table."""

    @abstractmethod
    def load(self, image: Image, cluster: Cluster) -> Sample:
        """Load the image; raises `Failed`."""

    @abstractmethod
    def begin(self) -> None:
        """Forget what earlier loads have taught."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of the command."""
        return environment(self.engine.environ(), self.folder)


@attrs.frozen
class Kind(Contestant):
    """`kind load docker-image`."""

    version: str
    program: Path

    @property
    def name(self) -> str:
        """The command, with kind's version."""
        return f"kind {self.version} load docker-image"

    def begin(self) -> None:
        """Do nothing: kind learns nothing."""

    def load(self, image: Image, cluster: Cluster) -> Sample:
        """Load the image as kind does it on Docker."""
        command = (self.program, "load", "docker-image", image.name, "--name", cluster.name)
        return Sample(measure(command, self.env, self.folder)[0])


@attrs.frozen
class KindArchive(Kind):
    """`podman save` and `kind load image-archive`: kind does not find Podman's images."""

    @property
    def name(self) -> str:
        """Both commands, with kind's version."""
        return f"podman save + kind {self.version} load image-archive"

    def load(self, image: Image, cluster: Cluster) -> Sample:
        """Load the image by way of a file, and remove that."""
        path = self.folder / "image.tar"
        save = [*self.engine.client, "save", "-o", str(path), image.name]
        load = (self.program, "load", "image-archive", path, "--name", cluster.name)
        try:
            saved, _ = measure(save, self.env, self.folder)
            loaded, _ = measure(load, self.env, self.folder)
        finally:
            path.unlink(missing_ok=True)
        return Sample(saved.then(loaded))


@attrs.frozen
class Imgload(Contestant):
    """`imgload load`, with a memory of its own."""

    @property
    def name(self) -> str:
        """The command."""
        return "imgload load"

    @property
    def env(self) -> dict[str, str]:
        """The environment, with a state folder that can be removed."""
        return {**super().env, "XDG_CACHE_HOME": str(self._cache)}

    def begin(self) -> None:
        """Remove the state folder."""
        shutil.rmtree(self._cache, ignore_errors=True)

    def load(self, image: Image, cluster: Cluster) -> Sample:
        """Load the image; what imgload reports has to be true and it may leave nothing."""
        program = Path(sys.executable).with_name("imgload")
        options = ("--cluster", cluster.name, "--from", self._source, "--output", "json")
        usage, shown = measure((program, "load", image.name, *options), self.env, self.folder)
        report = json.loads(shown)["images"][0]
        if report["image_id"] != image.image_id:
            raise Failed(f"imgload reports {report['image_id']}, and it is {image.image_id}")
        if left := list((self.folder / "tmp").iterdir()):
            raise Failed(f"imgload left {left}")
        actions = {node["action"] for node in report["nodes"]}
        sent = sum(node["bytes_sent"] for node in report["nodes"])
        return Sample(usage, "+".join(sorted(actions)), sent)

    @property
    def _cache(self) -> Path:
        return self.folder / "cache"

    @property
    def _source(self) -> str:
        return "podman" if self.engine.name.startswith("podman") else "docker"


def rival(lab: Lab, engine: Engine, cluster: Cluster, folder: Path) -> Kind:
    """Return the newest kind that can load a small image here."""
    kind_of = KindArchive if engine.name.startswith("podman") else Kind
    tried = [kind_of(engine, folder, version, lab.kind(version)) for version in reversed(VERSIONS)]
    builder = Builder(engine, _PROBE)
    try:
        image = builder.anew()
        return next(kind for kind in tried if _works(kind, image, cluster))
    except StopIteration:
        raise Failed(f"{engine.name}: no kind can load an image") from None
    finally:
        builder.clear()


def _works(kind: Kind, image: Image, cluster: Cluster) -> bool:
    try:
        kind.load(image, cluster)
        check(cluster, image)
    except Failed:
        return False
    finally:
        forget(cluster, [image])
    return True
