"""Podman (libpod API)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from imgload.core.errors import EngineFailed, ReferenceInvalid
from imgload.engines.base import EngineDescription, EngineImage, ImageEvent
from imgload.engines.endpoint import Endpoint
from imgload.engines.http import LOOK_UP_SECONDS, STREAM_SECONDS, Params, checked
from imgload.engines.http_engine import (
    RestEngine,
    image_digest,
    read_image,
    repositories_of,
    tags_of,
)
from imgload.engines.temporary_tags import LIST
from imgload.oci.digest import Digest
from imgload.oci.document import dig, text_at
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, image_id_prefix, is_full_image_id

if TYPE_CHECKING:
    from podman import PodmanClient


class Podman(RestEngine):
    """A Podman API service, rootful or rootless.

    Args:
        client: a client of Podman's SDK, which `close` leaves open; None discovers the first Podman
            that answers. For a client over ``ssh://``, imgload runs ssh to the same address itself.

    Raises:
        EngineError: the engine cannot be reached, or is not Podman.
        UsageError: `client` is of another type.

    """

    kind = "podman"
    api = "/libpod"
    save_path = "/images/export"
    event_filters: ClassVar = {
        "event": ["tag", "build", "loadfromarchive", "import", "pull", "commit"]
    }
    temporary_names = LIST

    def __init__(self, client: PodmanClient | Endpoint | None = None) -> None:
        super().__init__(client)

    @checked
    def find(self, name: str) -> EngineImage | None:
        """Return the image or manifest list with a name or ID, or None.

        For a manifest list, Podman returns the image in it for this machine's platform, or "not
        found". So look for a list if the answer has neither the name nor the ID.
        """
        path, doing = f"/images/{name}/json", f"inspecting the image {name}"
        document = self.document("GET", path, doing, absent_ok=True)
        if document and _has_name(name, document):
            return _read_image(document)
        manifest_list = self._find_list(name, document)
        return manifest_list or (_read_image(document) if document else None)

    def _find_list(self, name: str, own: dict[str, Any] | None) -> EngineImage | None:
        """Return a manifest list by name or ID; `own` is its image for this machine's platform."""
        if not self._is_list(name):
            return None
        params = {"all": "true"}
        images = self.document("GET", "/images/json", "listing images", params=params) or ()
        lists = (i for i in images if _has_name(name, i) and self._is_list(i["Id"]))
        document = next(lists, None)
        if document is None:
            return None
        index = self.document("GET", f"/manifests/{document['Id']}/json", f"inspecting {name}")
        ids = {digest: image["Id"] for image in images for digest in _manifest_digests(image)}
        listed: list[Platform] = []
        instances: dict[Platform, Digest] = {}
        for entry in index.get("manifests") or ():
            if platform := Platform.from_json(entry.get("platform")):
                listed.append(platform)
                if image_id := ids.get(entry.get("digest")):
                    instances[platform] = Digest.from_engine_id(image_id)
        runs_here = [p for p, digest in instances.items() if own and digest.hex == own["Id"]]
        return EngineImage(
            target=Digest.from_engine_id(document["Id"]),
            image_id=None,
            names=tags_of(document),
            platform=next(iter([*runs_here, *instances, *listed]), Platform.of("linux", "")),
            diff_ids=(),
            size=0,
            incomplete_platforms=frozenset(listed) - instances.keys(),
            has_complete_platform=bool(instances),
            instances=instances,
        )

    def _is_list(self, name: str) -> bool:
        """Whether a name or ID is a manifest list's.

        Other requests for a list query registries as well. Podman 4.3 answers with an error for an
        image that is not a list.
        """
        path, doing = f"/manifests/{name}/exists", f"looking for the manifest list {name}"
        try:
            with self.request("GET", path, doing):
                return True
        except EngineFailed as error:
            if error.refused:
                return False
            raise

    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        # Podman returns only images that match all references of one request.
        lists = [super(Podman, self).names([reference]) for reference in references]
        return dict(item for names in lists or [super().names()] for item in names.items())

    def event(self, document: dict[str, Any]) -> ImageEvent:
        # The name of a build is its image ID, and before 4.4 the name of a load is its file.
        actor, action = document["Actor"], document["Action"]
        name = actor["Attributes"].get("name") or ""
        target = image_digest(actor["ID"] or name)
        if document["Type"] != "image" or (target is None and action != "pull"):
            return ImageEvent()
        if target and action != "tag":
            return ImageEvent("", target)
        return ImageEvent(_full_name(name), target)

    def save_params(self, images: Sequence[str], platform: Platform | None) -> list[Params]:
        """Return those of a docker-archive, and of an OCI archive, which can have one image only.

        A docker-archive cannot have layers with zstd, nor an OCI manifest with Docker's media type
        for a layer, as Skopeo copies them from Docker's containerd image store. An OCI archive can,
        as long as Podman need not compress its layers.
        """
        del platform  # an image in Podman's store has one platform
        references = [("references", image) for image in images]
        oci = [("format", "oci-archive"), ("ociAcceptUncompressedLayers", "true"), *references]
        return [[("format", "docker-archive"), *references], *([oci] if len(images) == 1 else [])]

    @checked
    def remove_temporary(self, name: str, image: str) -> bool:
        del image
        path, doing = f"/manifests/{name}", f"removing the manifest list {name}"
        with self.request("DELETE", path, doing, absent_ok=True) as answer:
            return answer.status != HTTPStatus.NOT_FOUND

    @contextmanager
    def pushing(self, image: Digest, repository: str) -> Iterator[Callable[[], None]]:
        params = {"destination": f"{repository}:latest", "tlsVerify": "false", "quiet": "false"}
        path, doing = f"/images/{image.hex}/push", f"pushing {image.short}"
        yield lambda: self._follow(path, doing, params=params, seconds=STREAM_SECONDS)

    @checked
    def identity(self) -> str:
        # Podman has no ID; the paths of its stores identify it.
        info = self._info()
        keys = ("graphRoot", "runRoot", "graphRootAllocated")
        values = (dig(info, "host", "hostname"), *(dig(info, "store", key) for key in keys))
        return " ".join(map(str, values))

    @checked
    def description(self) -> EngineDescription:
        info = self._info()
        return EngineDescription(
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
        return self._layer_sizes(image.hex)


def _read_image(document: dict[str, Any]) -> EngineImage:
    """Return an image; one that was pulled through an index has the digest of that, too.

    Podman shows a digest for every image.
    """
    pulled = (name for name, digests in repositories_of(document).items() if digests > 1)
    return attrs.evolve(read_image(document), pulled=tuple(pulled))


def _has_name(name: str, document: dict[str, Any]) -> bool:
    """Whether an image has an ID or name; a short name matches on Docker Hub and on localhost."""
    digits = image_id_prefix(name)
    if digits and document["Id"].removeprefix("sha256:").startswith(digits):
        return True
    if is_full_image_id(name):
        return False
    reference = Reference.parse(name)
    names = {str(reference), *([str(reference.with_localhost())] if reference.is_short else [])}
    return reference.digest is not None or not names.isdisjoint(document.get("RepoTags") or ())


def _manifest_digests(document: dict[str, Any]) -> Iterator[str]:
    yield document.get("Digest") or ""
    yield from (name.partition("@")[2] for name in document.get("RepoDigests") or ())


def _full_name(name: str) -> str:
    """Return a name as Podman stores it: without a registry it is on localhost."""
    try:
        reference = Reference.parse(name)
    except ReferenceInvalid:
        return ""
    return str(reference.with_localhost() if reference.is_short else reference)
