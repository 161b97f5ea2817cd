"""Run a custom builder as Skaffold does (pkg/skaffold/build/custom)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import attrs

from imgload.oci.digest import Digest
from imgload.registry.sink import ManifestSink, UploadWriter
from tests.lab import Lab
from tests.lab.engine import Engine

GRACE_SECONDS = 2.0
CLUSTERS = {
    "docker": "lab-d21",
    "docker28": "lab-e21",
    "docker28-graphdriver": "lab-d21",
    "podman": "lab-p21",
}
"""The cluster for each engine that builds. With Podman there is no Docker at all."""


@attrs.define
class RegistryContents(ManifestSink):
    """The contents of a registry: the size of each blob, and the manifests."""

    sizes: dict[Digest, int] = attrs.field(factory=dict)

    def stat_blob(self, digest: Digest) -> int | None:
        return self.sizes.get(digest)

    def upload(self, _digest: Digest | None, _size: int | None) -> UploadWriter:
        return _Counted(self)


@attrs.define
class _Counted:
    registry: RegistryContents
    size: int = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def finish(self, digest: Digest) -> None:
        self.registry.sizes[digest] = self.size

    def abandon(self) -> None:
        self.size = 0


@attrs.frozen
class BuildResult:
    """The exit status and output of a build."""

    status: int
    output: str


@attrs.frozen
class Skaffold:
    """Skaffold, as a custom builder sees it.

    Args:
        engine: the engine in ``DOCKER_HOST``.
        folder: the artifact's context.
        image: name and tag that the tagger chose.
        exported: variables that the user's shell exports; they override Skaffold's.

    """

    engine: Engine
    folder: Path
    image: str
    exported: dict[str, str]

    @classmethod
    def on(cls, lab: Lab, name: str, home: Path, image: str) -> Skaffold:
        """Return one whose user has a kube context, this engine and the cluster's engine."""
        engine = lab.engine(name)
        home.mkdir()
        program = home / "imgload"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m imgload "$@"\n')
        program.chmod(0o755)
        host = lab.cluster(CLUSTERS[name]).engine
        second = f"unix://{home}/nobody.sock" if host is engine else host.url
        (home / "kubeconfig").write_text(f"current-context: kind-{CLUSTERS[name]}\n")
        folder = home / "context"
        folder.mkdir()
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        client = [str(Path(engine.client[0]).parent)]
        exported = {
            "DOCKER_HOST": engine.url,
            "CONTAINER_HOST": second,
            "KUBECONFIG": str(home / "kubeconfig"),
            "PATH": ":".join([str(home), *client, os.environ["PATH"]]),
            "DOCKER_BUILDKIT": "0",
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(home),
        }
        return cls(engine, folder, image, exported)

    @property
    def repository(self) -> str:
        """The image's name without its tag."""
        return self.image.rpartition(":")[0]

    def environ(self, **changed: str) -> dict[str, str]:
        """Return the environment of the build command."""
        own = {
            "IMAGE": self.image,
            "PUSH_IMAGE": "false",
            "BUILD_CONTEXT": str(self.folder),
            "PLATFORMS": "",
            "SKIP_TEST": "false",
            "IMAGE_REPO": self.repository,
            "IMAGE_TAG": self.image.rpartition(":")[2],
        }
        return {**os.environ, **own, **self.exported, **changed}

    def start(self, command: str, **changed: str) -> subprocess.Popen[str]:
        """Start the build command; its stdout and stderr are one stream."""
        return subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.environ(**changed),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, command: str = "imgload skaffold", **changed: str) -> BuildResult:
        """Run the build command."""
        with self.start(command, **changed) as process:
            output, _ = process.communicate(timeout=120)
        return BuildResult(process.returncode, output)

    def cancel(self, process: subprocess.Popen[str]) -> BuildResult:
        """Send SIGINT to the process, SIGKILL after two seconds, and wait."""
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        process.kill()
        output, _ = process.communicate(timeout=20)
        return BuildResult(process.returncode, output)

    def deployed(self) -> str:
        """Inspect the image over the Docker API, tag it by its ID, and return that name."""
        inspected = self._docker("image", "inspect", self.image)
        image_id = str(json.loads(inspected)[0]["Id"])
        name = f"{self.repository}:{image_id.removeprefix('sha256:')}"
        self._docker("tag", image_id, name)
        return name

    def clear(self) -> None:
        """Remove the built images under all their names."""
        names = self._docker("images", "--format", "{{.Repository}}:{{.Tag}}", self.repository)
        if names.split():
            self._docker("rmi", "--force", *names.split())

    def _docker(self, *words: str) -> str:
        done = subprocess.run(
            ["docker", "-H", self.engine.url, *words], capture_output=True, text=True, check=True
        )
        return done.stdout
