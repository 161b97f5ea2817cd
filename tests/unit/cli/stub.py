"""A stub of the Docker daemon, with one image and some containers."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from imgload.oci.digest import Digest
from tests.unit.answering import Answer, answering

Json = dict[str, Any]
VERSION = "1.41"
KIND_LABEL = "io.x-k8s.kind.cluster"
IMAGE: Json = {
    "Id": str(Digest.of(b"app")),
    "RepoTags": ["app:dev"],
    "Os": "linux",
    "Architecture": "amd64",
    "GraphDriver": {"Name": "overlay2"},
    "RootFS": {"Layers": [str(Digest.of(b"layer"))]},
    "Size": 5 << 20,
}


def node(name: str = "kind-control-plane", state: str = "paused", cluster: str = "kind") -> Json:
    """Return a container that kind made, as Docker lists it."""
    labels = {KIND_LABEL: cluster, "io.x-k8s.kind.role": "control-plane"}
    return {"Id": "c" * 64, "Names": [f"/{name}"], "State": state, "Labels": labels}


@attrs.frozen
class Docker:
    """What the daemon has; `broken` fails every request, `on_list` is called for kind's or all."""

    containers: Sequence[Json] = (node(),)
    broken: bool = False
    on_list: Callable[[], None] = lambda: None

    def answer(self, path: str) -> tuple[int, Any]:
        if path in {"/_ping", "/version"}:
            return 200, {"ApiVersion": VERSION, "Version": "20.10"}
        if self.broken:
            return 500, {"message": "the database is locked"}
        if path == f"/v{VERSION}/info":
            return 200, {"ServerVersion": "20.10"}
        if path.startswith(f"/v{VERSION}/containers/json"):
            return 200, self._labelled(path)
        if path == f"/v{VERSION}/images/app:dev/json":
            return 200, IMAGE
        return 404, {"message": f"no such thing: {path}"}

    def _labelled(self, path: str) -> list[Json]:
        """Return the containers that have the label asked for."""
        [filters] = parse_qs(urlsplit(path).query)["filters"]
        if not (wanted := json.loads(filters)):
            self.on_list()
            return list(self.containers)
        key, _, value = wanted["label"][0].partition("=")
        if key == KIND_LABEL:
            self.on_list()
        labels = ((c, c["Labels"].get(key)) for c in self.containers)
        return [c for c, found in labels if found is not None and value in {"", found}]

    @contextmanager
    def listening(self, folder: Path) -> Iterator[str]:
        """Yield the daemon's address."""
        headers = {"Api-Version": VERSION, "Content-Type": "application/json"}

        def answer(path: str) -> Answer:
            status, document = self.answer(path)
            return status, headers, document

        with answering(folder / "docker.sock", answer) as url:
            yield url
