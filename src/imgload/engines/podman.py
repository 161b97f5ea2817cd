"""Podman (libpod API)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

from imgload.core.errors import EngineFailed, ReferenceInvalid
from imgload.engines.base import About, Container, EngineImage, ImageEvent
from imgload.engines.discovery.config_files import dig, text_at
from imgload.engines.http import LOOK_UP_SECONDS, STREAM_SECONDS, Answer, save_seconds
from imgload.engines.http_engine import NOT_FOUND, RestEngine, image_digest, read_container, tags_of
from imgload.engines.temporary_tags import LIST
from imgload.engines.translate import refuse_bad_answer, translated, understood
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, image_id_prefix, is_full_image_id


class PodmanEngine(RestEngine):
    """A Podman API service, rootful or rootless."""

    @property
    def root(self) -> str:
        """Podman's own interface, of its own version."""
        return f"/v{self._wire.version}/libpod"

    @understood
    def find(self, name: str) -> EngineImage | None:
        """Return the image that the engine knows by a name or image ID, or None.

        Podman answers for a manifest list with the image in it that this machine runs, or not at
        all; so a list is looked for where the answer has neither the name nor the ID.
        """
        found = self.found(f"/images/{name}/json", f"inspecting the image {name}")
        if found and _is_called(name, found):
            return self._image(found)
        listed = self._list(name, found)
        return listed or (self._image(found) if found else None)

    def _list(self, name: str, own: dict[str, Any] | None) -> EngineImage | None:
        """Return a manifest list, or None.

        Args:
            name: of the list, or its ID.
            own: the image in it that this machine runs, as the engine describes it.

        """
        if not self._is_list(name):
            return None
        params = {"all": "true"}
        images = self.document("GET", "/images/json", "listing images", params=params)
        called = [
            each for each in images or () if _is_called(name, each) and self._is_list(each["Id"])
        ]
        if not called:
            return None
        index = self.document("GET", f"/manifests/{called[0]['Id']}/json", f"inspecting {name}")
        ids = {digest: each["Id"] for each in images for digest in _manifest_digests(each)}
        entries = [
            (platform, ids.get(entry.get("digest")))
            for entry in index.get("manifests") or ()
            if (platform := Platform.from_json(entry.get("platform")))
        ]
        there = {p: Digest.from_engine_id(image_id) for p, image_id in entries if image_id}
        runs_here = [p for p, digest in there.items() if own and digest.hex == own["Id"]]
        listed = [platform for platform, _ in entries]
        return EngineImage(
            target=Digest.from_engine_id(called[0]["Id"]),
            image_id=None,
            names=tags_of(called[0]),
            platform=next(iter([*runs_here, *there, *listed]), Platform.of("linux", "")),
            diff_ids=(),
            size=0,
            absent=frozenset(listed) - there.keys(),
            whole=bool(there),
            instances=there,
        )

    def _is_list(self, name: str) -> bool:
        """Return whether a name or ID is a manifest list's.

        Other requests for a list ask registries, too. Podman 4.3 answers with an error for an
        image that is no list.
        """
        doing = f"looking for the manifest list {name}"
        path = f"/manifests/{name}/exists"
        with translated(self.endpoint, doing), self._send("GET", path) as answer:
            return answer.status < HTTPStatus.MULTIPLE_CHOICES

    def _image(self, found: dict[str, Any]) -> EngineImage:
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
        with translated(self.endpoint, doing):
            answer = self._ask_to_save(images, doing, save_seconds(size))
        with answer:
            yield self._body(answer)

    def _ask_to_save(self, images: Sequence[str], doing: str, seconds: float) -> Answer:
        """Ask for a docker-archive, which may have several images, or else for an OCI archive.

        A docker-archive cannot have layers with zstd, nor an OCI manifest with Docker's media type
        for a layer, as Skopeo copies them from Docker's containerd image store. An OCI archive can,
        as long as Podman need not compress its layers.
        """
        references = [("references", image) for image in images]
        form = [("format", "docker-archive")]
        oci = [("format", "oci-archive"), ("ociAcceptUncompressedLayers", "true")]
        ask = partial(self.ask, "GET", "/images/export", doing, seconds=seconds)
        try:
            return ask(params=[*form, *references])
        except EngineFailed:
            if len(images) > 1:
                raise
        return ask(params=[*oci, *references])

    temporary_names = LIST

    @understood
    def remove_temporary(self, name: str, image: str) -> bool:
        """Remove a manifest list, and none of its images; return whether the engine had it."""
        del image
        doing = f"removing the manifest list {name}"
        path = f"/manifests/{name}"
        with translated(self.endpoint, doing), self._send("DELETE", path) as answer:
            if answer.status == NOT_FOUND:
                return False
            refuse_bad_answer(answer, self.endpoint, doing)
            return True

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

    @understood
    def identity(self) -> str:
        """Return where it keeps what; Podman has no ID."""
        info = self.document("GET", "/info", "asking about the service")
        stores = ("graphRoot", "runRoot", "graphRootAllocated")
        told = (dig(info, "host", "hostname"), *(dig(info, "store", key) for key in stores))
        return " ".join(map(str, told))

    @understood
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

    @understood
    def layer_sizes(self, image: Digest) -> list[int]:
        return self._layer_sizes(f"/images/{image.hex}/history")

    @understood
    def containers(self, label: str) -> list[Container]:
        params = {"all": "true", "filters": json.dumps({"label": [label]})}
        found = self.document("GET", "/containers/json", "listing containers", params=params)
        return [
            read_container(c, c["Names"][0], c["State"], c.get("Labels"))
            for c in found or ()
            if c.get("Names")
        ]

    @understood
    def container(self, name: str) -> Container | None:
        found = self.found(f"/containers/{name}/json", f"inspecting the container {name}")
        if found is None:
            return None
        labels = (found.get("Config") or {}).get("Labels")
        return read_container(found, found["Name"], found["State"]["Status"], labels)


def _is_called(text: str, found: dict[str, Any]) -> bool:
    """Whether an image has an ID, or one of the two names that a name may mean."""
    digits = image_id_prefix(text)
    if digits and found["Id"].removeprefix("sha256:").startswith(digits):
        return True
    if is_full_image_id(text):
        return False
    wanted = Reference.parse(text)
    names = {str(wanted), *([str(wanted.on_localhost())] if wanted.short else [])}
    return wanted.digest is not None or not names.isdisjoint(found.get("RepoTags") or ())


def _manifest_digests(found: dict[str, Any]) -> Iterator[str]:
    """Yield the digests of the manifests that an image has."""
    yield found.get("Digest") or ""
    for name in found.get("RepoDigests") or ():
        yield name.partition("@")[2]


def _local(name: str) -> str:
    """Return a name as Podman keeps it: what is written without a registry is on localhost."""
    try:
        reference = Reference.parse(name)
    except ReferenceInvalid:
        return ""
    return str(reference.on_localhost() if reference.short else reference)
