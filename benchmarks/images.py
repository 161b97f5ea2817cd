"""Images that are like no other, with one line to change."""

import contextlib
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import attrs

from tests.lab import CommandError, Engine

_SHARES = (400, 190, 2, 2, 2, 2, 2)
_STORE = "data/containerd/daemon/io.containerd.content.v1.content/blobs/sha256"


@attrs.frozen
class Image:
    """A build: its name, its image ID (the config's digest) and its layers, bottom up."""

    name: str
    image_id: str
    diff_ids: tuple[str, ...]

    @property
    def chain_ids(self) -> list[str]:
        """The keys of its snapshots on a node (OCI image spec, "Layer ChainID")."""
        chain = [self.diff_ids[0]]
        for diff_id in self.diff_ids[1:]:
            digest = hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest()
            chain.append(f"sha256:{digest}")
        return chain


@attrs.define
class Builder:
    """Builds of one image on one engine; `size` in bytes."""

    engine: Engine
    size: int
    name: str = attrs.field(factory=lambda: _unique("bench"))
    base: str = attrs.field(factory=lambda: _unique("bench-base"))
    built: list[Image] = attrs.field(factory=list)
    _own_ids: list[str] = attrs.field(factory=list)

    def anew(self) -> Image:
        """Build an image of which no layer was there before, and so none that was pushed."""
        parts = [self.size * share // sum(_SHARES) for share in _SHARES]
        layers = [{f"part{n}": secrets.token_bytes(part)} for n, part in enumerate(parts)]
        self._own_ids.append(self.engine.build(self.base, layers=layers))
        return self.rebuild()

    def rebuild(self) -> Image:
        """Build it again with one line changed, in its last layer."""
        line = f"{secrets.token_hex(16)}\n".encode()
        own_id = self.engine.build(self.name, {"app.txt": line}, base=self.base)
        self._own_ids.append(own_id)
        template = "{{json .RootFS.Layers}}"
        shown = self.engine.cli("image", "inspect", "--format", template, self.name)
        image = Image(self.name, config_digest(self.engine, own_id), tuple(json.loads(shown)))
        self.built.append(image)
        return image

    def tags(self) -> list[str]:
        """Return the names that the newest build has in the engine."""
        template = "{{json .RepoTags}}"
        shown = self.engine.cli("image", "inspect", "--format", template, self.name)
        return list(json.loads(shown))

    def clear(self) -> None:
        """Remove all builds from the engine."""
        for target in (self.name, *reversed(self._own_ids), self.base):
            with contextlib.suppress(CommandError):
                self.engine.cli("rmi", "--force", target)


def config_digest(engine: Engine, own_id: str) -> str:
    """Return the image ID, which Docker's containerd store does not tell.

    There it is read from the daemon's files, so that neither kind nor imgload is asked.
    """
    path = engine.paths.root / engine.name / _STORE / own_id.removeprefix("sha256:")
    return _config_of(path) if path.exists() else own_id


def _config_of(path: Path) -> str:
    document: dict[str, Any] = json.loads(path.read_bytes())
    if "manifests" in document:
        digest = str(document["manifests"][0]["digest"])
        return _config_of(path.with_name(digest.removeprefix("sha256:")))
    return str(document["config"]["digest"])


def _unique(repository: str) -> str:
    return f"docker.io/library/{repository}-{secrets.token_hex(4)}:dev"
