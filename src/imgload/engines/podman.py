"""Podman (libpod API)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from imgload.engines.base import About, Container, EngineImage, ImageEvent
from imgload.engines.rest import RestEngine, image_digest, tags_of
from imgload.engines.settings import dig, text_at
from imgload.engines.trouble import translated
from imgload.engines.wire import LOOK_UP_SECONDS, STREAM_SECONDS, save_seconds
from imgload.errors import ReferenceInvalid
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.reference import Reference


class PodmanEngine(RestEngine):
    """A Podman API service, rootful or rootless."""

    @property
    def root(self) -> str:
        """Podman's own interface, of its own version."""
        return f"/v{self._wire.version}/libpod"

    def find(self, name: str) -> EngineImage | None:
        found = self.found(f"/images/{name}/json", f"inspecting the image {name}")
        if found is None:
            return None
        image_id = Digest.from_engine_id(found["Id"])
        return EngineImage(
            target=image_id,
            image_id=image_id,
            names=tags_of(found),
            platform=Platform.of(
                found.get("Os") or "linux",
                found.get("Architecture") or "",
                found.get("Variant") or "",
            ),
            diff_ids=tuple(map(Digest.parse, (found.get("RootFS") or {}).get("Layers") or ())),
            size=int(found.get("Size") or 0),
        )

    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        """Return the names; Podman takes several references for a demand to fit them all."""
        found = [super(PodmanEngine, self).names([each]) for each in references]
        return dict(item for names in found or [super().names()] for item in names.items())

    event_filters: ClassVar = {
        "event": ["tag", "build", "loadfromarchive", "import", "pull", "commit"]
    }

    def since(self, back: float) -> str:
        return f"{back:.3f}s"

    def event(self, told: dict[str, Any]) -> ImageEvent:
        """Understand it: a build is named by its image ID, and before 4.4 a load by its file."""
        actor = told["Actor"]
        name = actor["Attributes"].get("name") or ""
        target = image_digest(actor["ID"] or name)
        if told["Type"] != "image" or (target is None and told["Action"] != "pull"):
            return ImageEvent()
        if target and told["Action"] != "tag":
            return ImageEvent("", target)
        return ImageEvent(_local(name), target)

    @contextmanager
    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> Iterator[Iterator[bytes]]:
        del platform  # an image in Podman's store has one platform
        doing = f"saving {', '.join(images)}"
        params = [("format", "docker-archive"), *(("references", image) for image in images)]
        seconds = save_seconds(size)
        with translated(self.endpoint, doing):
            answer = self.ask("GET", "/images/export", doing, params=params, seconds=seconds)
        with answer:
            yield self._body(answer)

    @contextmanager
    def pushing(self, image: Digest, repository: str) -> Iterator[Callable[[], None]]:
        yield partial(self._push, image, repository)

    def _push(self, image: Digest, repository: str) -> None:
        doing = f"pushing {image.short}"
        params = {"destination": f"{repository}:latest", "tlsVerify": "false", "quiet": "false"}
        with (
            translated(self.endpoint, doing),
            self.ask(
                "POST",
                f"/images/{image.hex}/push",
                doing,
                params=params,
                seconds=STREAM_SECONDS,
            ) as answer,
        ):
            self._until_pushed(answer)

    def identity(self) -> str:
        """Return where it keeps what; Podman has no ID."""
        info = self.document("GET", "/info", "asking about the service")
        stores = ("graphRoot", "runRoot", "graphRootAllocated")
        told = (dig(info, "host", "hostname"), *(dig(info, "store", key) for key in stores))
        return " ".join(map(str, told))

    def about(self) -> About:
        info = self.document("GET", "/info", "asking about the service")
        return About(
            version=text_at(info, "version", "Version"),
            store=text_at(info, "store", "graphDriverName"),
            rootless=dig(info, "host", "security", "rootless") is True,
            platform=Platform.of(text_at(info, "host", "os"), text_at(info, "host", "arch")),
        )

    def look_up(self, repository: str) -> None:
        params = {"term": repository, "listTags": "true", "tlsVerify": "false"}
        doing = f"looking {repository} up"
        self.document("GET", "/images/search", doing, params=params, seconds=LOOK_UP_SECONDS)

    def layer_sizes(self, image: Digest) -> list[int]:
        return self._layer_sizes(f"/images/{image.hex}/history")

    def containers(self, label: str) -> list[Container]:
        params = {"all": "true", "filters": json.dumps({"label": [label]})}
        found = self.document("GET", "/containers/json", "listing containers", params=params)
        return [
            Container(c["Id"], c["Names"][0], c["State"], c.get("Labels") or {})
            for c in found
            if c.get("Names")
        ]

    def container(self, name: str) -> Container | None:
        found = self.found(f"/containers/{name}/json", f"inspecting the container {name}")
        if found is None:
            return None
        labels = (found.get("Config") or {}).get("Labels") or {}
        return Container(found["Id"], found["Name"], found["State"]["Status"], labels)


def _local(name: str) -> str:
    """Return a name as Podman keeps it: what is written without a registry is on localhost."""
    try:
        reference = Reference.parse(name)
    except ReferenceInvalid:
        return ""
    return str(reference.on_localhost() if reference.short else reference)
