"""Who is measured: the real kind, the ways around it, and imgload."""

import contextlib
import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import ClassVar, Self

import attrs

from benchmarks.images import Builder, Image
from benchmarks.measure import Failed, Usage, Watch, environment, measure
from benchmarks.nodes import check, forget
from tests.engine.jsonlines import JsonLines
from tests.lab import Cluster, Engine, Lab
from tests.lab.kind import VERSIONS
from tests.lab.shell import write

_PROGRAM = Path(sys.executable).with_name("imgload")
_PROBE = 1 << 10
_COUNTING = """\
#!/bin/sh
case " $* " in
*" import "*) "{program}" "$@" || exit ;;
*) exec "{program}" "$@" ;;
esac
while read -r key value; do [ "$key" != wchar: ] || echo "$value" >>"{log}"; done </proc/$$/io
"""
"""Counts what a client wrote that fed an import: a shell's counts hold those of whom it awaited."""
_PIPE = """\
set -euo pipefail
program=$1 nodes=$2; shift 2
for node in $nodes; do
    "$program" save "$@" | "$program" exec -i "$node" ctr -n k8s.io images import --local -
done
"""
_OWN = "/imgload/"
"""What is in the name of each image that imgload has an engine push."""


@attrs.frozen
class Sample:
    """One load: what it used, what went into the nodes (bytes), and what imgload says it did."""

    usage: Usage
    sent: int
    action: str | None = None

    def then(self, seconds: float) -> "Sample":
        """Return the sample with more seconds."""
        longer = attrs.evolve(self.usage, seconds=self.usage.seconds + seconds)
        return attrs.evolve(self, usage=longer)


@attrs.frozen
class Contestant(ABC):
    """A command that loads images into a cluster."""

    can_start: ClassVar[bool] = False
    """Whether it takes part in the cases that end with the start of a container."""
    engine: Engine
    folder: Path

    @property
    @abstractmethod
    def name(self) -> str:
        """The command, for people."""

    @abstractmethod
    def load(self, images: Sequence[Image], cluster: Cluster) -> Sample:
        """Load the images; raises `Failed`."""

    def begin(self) -> None:
        """Forget what earlier loads have taught."""
        shutil.rmtree(self._cache, ignore_errors=True)

    @contextlib.contextmanager
    def ready(self, cluster: Cluster) -> Iterator[Self]:  # noqa: ARG002
        """Run what has to run during its loads."""
        yield self

    @property
    def env(self) -> dict[str, str]:
        """The environment of the command, with a cache that can be removed."""
        found = environment(self.engine.environ(), self.folder)
        return {**found, "XDG_CACHE_HOME": str(self._cache)}

    @property
    def client(self) -> str:
        """The name of the engine's client."""
        return "podman" if self.engine.name.startswith("podman") else "docker"

    def measure(self, *argv: str | Path, flush: bool = True) -> tuple[Usage, str]:
        """Return what a command used, and its stdout."""
        return measure(argv, self.env, self.folder, self.engine.daemon.pid, flush=flush)

    @property
    def _cache(self) -> Path:
        return self.folder / "cache"


@attrs.frozen
class Feeder(Contestant):
    """A contestant that feeds imports by the engine's client, where the bytes are counted."""

    @property
    def env(self) -> dict[str, str]:
        """The environment, with a client on PATH that counts."""
        found = super().env
        program = shutil.which(self.client, path=found["PATH"])
        text = _COUNTING.format(program=program, log=self._log)
        wrapper = write(self.folder / "bin" / self.client, text, 0o755)
        return {**found, "PATH": f"{wrapper.parent}:{found['PATH']}"}

    def load(self, images: Sequence[Image], cluster: Cluster) -> Sample:
        """Load the images, and count what was fed."""
        self._log.unlink(missing_ok=True)
        usage = self.feed([image.source for image in images], cluster)
        fed = self._log.read_text().split() if self._log.exists() else []
        return Sample(usage, sum(map(int, fed)))

    @abstractmethod
    def feed(self, names: Sequence[str], cluster: Cluster) -> Usage:
        """Load images by name, or archives by path."""

    def save_options(self, names: Sequence[str]) -> list[str]:
        """Return the arguments with which the client saves images."""
        several = self.client == "podman" and len(names) > 1
        return [*(["--multi-image-archive"] if several else []), *names]

    @property
    def _log(self) -> Path:
        return self.folder / "fed"


@attrs.frozen
class Kind(Feeder):
    """`kind load docker-image`."""

    version: str
    program: Path

    @property
    def name(self) -> str:
        """The command, with kind's version."""
        return f"kind {self.version} load docker-image"

    def feed(self, names: Sequence[str], cluster: Cluster) -> Usage:
        """Load images as kind does it on Docker."""
        return self.kind("docker-image", *names, cluster=cluster)

    def kind(self, *what: str, cluster: Cluster, flush: bool = True) -> Usage:
        """Have kind load something."""
        nodes = ",".join(node.name for node in cluster.nodes)
        options = ["--nodes", nodes] if is_part(cluster) else []
        more = ("--name", cluster.name, *options)
        return self.measure(self.program, "load", *what, *more, flush=flush)[0]


@attrs.frozen
class KindArchive(Kind):
    """`kind load image-archive` of a file."""

    @property
    def name(self) -> str:
        """The command, with kind's version."""
        return f"kind {self.version} load image-archive FILE"

    def feed(self, names: Sequence[str], cluster: Cluster) -> Usage:
        """Load archives."""
        return self.kind("image-archive", *names, cluster=cluster)


@attrs.frozen
class Archive(Kind):
    """The engine's `save` into a file and `kind load image-archive`."""

    @property
    def name(self) -> str:
        """Both commands, with kind's version."""
        return f"{self.client} save + kind {self.version} load image-archive"

    def feed(self, names: Sequence[str], cluster: Cluster) -> Usage:
        """Load images by way of a file, and remove that; nothing between the two is free."""
        path = self.folder / "image.tar"
        try:
            saved, _ = self.measure(self.client, "save", "-o", path, *self.save_options(names))
            loaded = self.kind("image-archive", str(path), cluster=cluster, flush=False)
        finally:
            path.unlink(missing_ok=True)
        return saved.then(loaded)


@attrs.frozen
class Ctr(Feeder):
    """The engine's `save` piped into `ctr import`, into one node after the other."""

    @property
    def name(self) -> str:
        """The pipe."""
        return f"{self.client} save | {self.client} exec -i NODE ctr images import --local -"

    def feed(self, names: Sequence[str], cluster: Cluster) -> Usage:
        """Pipe images into each node."""
        nodes = " ".join(node.name for node in cluster.nodes)
        argv = ("bash", "-c", _PIPE, "pipe", self.client, nodes, *self.save_options(names))
        return self.measure(*argv)[0]


@attrs.frozen
class Imgload(Contestant):
    """`imgload load`, with a memory of its own."""

    can_start = True

    @property
    def name(self) -> str:
        """The command."""
        return "imgload load"

    def load(self, images: Sequence[Image], cluster: Cluster) -> Sample:
        """Load the images; what imgload reports has to be true and it may leave nothing."""
        before = self._traces()
        usage, shown = self.measure(_PROGRAM, *self.arguments(images, cluster))
        if left := self._traces() - before:
            raise Failed(f"imgload left {', '.join(sorted(left))}")
        reports = json.loads(shown)["images"]
        for image, report in zip(images, reports, strict=True):
            if report["image_id"] != image.image_id:
                raise Failed(f"imgload reports {report['image_id']}, and it is {image.image_id}")
        rows = [node for report in reports for node in report["nodes"]]
        actions = {row["action"] for row in rows}
        return Sample(usage, sum(row["bytes_sent"] for row in rows), "+".join(sorted(actions)))

    def _traces(self) -> set[str]:
        """Return the temporary files, and the tags in the engine, that only imgload makes."""
        tags = self.engine.cli("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        files = map(str, (self.folder / "tmp").glob("*"))
        return {*files, *(tag for tag in tags if _OWN in tag)}

    def arguments(self, images: Sequence[Image], cluster: Cluster) -> list[str]:
        """Return what the program is to do."""
        nodes = [word for node in cluster.nodes for word in ("--node", node.name)]
        options = ["--cluster", cluster.name, "--output", "json"]
        chosen = nodes if is_part(cluster) else []
        files = [image.source for image in images if image.file]
        source = files or [*(image.name for image in images), self.client]
        return ["load", *source[:-1], "--from", source[-1], *options, *chosen]


@attrs.frozen
class Serve(Contestant):
    """CRI's pull, as by the kubelet, while `imgload serve` runs."""

    can_start = True
    server: JsonLines | None = None

    @property
    def name(self) -> str:
        """The command, and what is measured."""
        return "a pull by CRI from imgload serve"

    @contextlib.contextmanager
    def ready(self, cluster: Cluster) -> Iterator[Self]:
        """Run the server, and wait until it has set up the nodes."""
        command = [str(_PROGRAM), "serve", "--cluster", cluster.name, "--from", self.engine.url]
        command += ["--output", "json"]
        with subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True) as process:
            server = JsonLines.reading(process)
            try:
                for _ in cluster.nodes:
                    server.next_where(lambda document: document.get("ok") is True)
                yield attrs.evolve(self, server=server)
            finally:
                server.stop()

    def load(self, images: Sequence[Image], cluster: Cluster) -> Sample:
        """Have CRI on each node pull the images; what imgload reports has to be true."""
        assert self.server
        watch = Watch(self.server.process.pid, self.engine.daemon.pid)
        for image, node in product(images, cluster.nodes):
            node.cri().pull_image(image.name)
        usage, sent = watch.usage(), 0
        for image, _ in product(images, cluster.nodes):
            report = self.server.next_where(lambda document: "bytes_sent" in document)
            if report["image_id"] != image.image_id:
                raise Failed(f"imgload reports {report['image_id']}, and it is {image.image_id}")
            sent += report["bytes_sent"]
        return Sample(usage, sent, "pull")


def is_part(cluster: Cluster) -> bool:
    """Whether these are some of the cluster's nodes only."""
    return len(cluster.nodes) < len(cluster.spec.roles)


def contestants(
    lab: Lab, engine: Engine, cluster: Cluster, folder: Path, *, archives: bool = False
) -> dict[str, Contestant]:
    """Return who can load from this engine or archives, with the newest kind that works here."""
    podman = engine.name.startswith("podman")
    kind = _newest(Archive if podman else Kind, lab, engine, cluster, folder)
    archive = Archive(engine, folder, kind.version, kind.program)
    if archives:
        from_file = KindArchive(engine, folder, kind.version, kind.program)
        return {"kind": from_file, "imgload": Imgload(engine, folder)}
    others = {"archive": archive, "ctr": Ctr(engine, folder), "imgload": Imgload(engine, folder)}
    others["serve"] = Serve(engine, folder)
    return others if podman else {"kind": kind, **others}


def _newest(kind_of: type[Kind], lab: Lab, engine: Engine, cluster: Cluster, folder: Path) -> Kind:
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
        kind.load([image], cluster)
        check(cluster, image)
    except Failed:
        return False
    finally:
        forget(cluster, [image])
    return True
