"""Docker (Docker Engine API)."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from imgload.core.errors import EngineFailed
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
from imgload.engines.temporary_tags import TAG, note_temporary_name
from imgload.oci.digest import Digest
from imgload.oci.document import dig, text_at
from imgload.oci.platform import Platform

if TYPE_CHECKING:
    from docker import APIClient, DockerClient

_PLATFORM_SAVE = (1, 48)
_MANIFESTS = (1, 48)
_SAVES_BY_DIGEST = (1, 44)
"""From Docker 25 on; earlier graphdriver stores save layers under IDs of their own."""
_TELLS_BUILDS = (1, 49)
"""Earlier versions omit the events of BuildKit's builds in one image store or the other (moby
#45404, #47978, #49678)."""
_NO_CREDENTIALS = "e30="  # ``{}``; Docker 20.10 refuses a push without the header
_UNTAG_SECONDS = 10.0
_PLACEHOLDER = "imgload: an empty image, in place of another that keeps its content"
"""The comment of an image that takes over a name; see `_move_to_placeholder`."""


class Docker(RestEngine):
    """A Docker daemon, with the graphdriver store or the containerd image store.

    Args:
        client: a client of Docker's SDK, which `close` leaves open; None discovers the first Docker
            that answers. For a client over ``ssh://``, imgload runs ssh to the same address itself.

    Raises:
        EngineError: the engine cannot be reached, or is not Docker.
        UsageError: `client` is of another type.

    """

    kind = "docker"
    api = ""
    save_path = "/images/get"
    event_filters: ClassVar = {"type": ["image"], "event": ["tag", "load", "import", "pull"]}
    temporary_names = TAG

    def __init__(self, client: DockerClient | APIClient | Endpoint | None = None) -> None:
        super().__init__(client)

    @property
    def _version(self) -> tuple[int, ...]:
        parts = self.endpoint.version.split(".")
        return tuple(int(part) for part in parts if re.fullmatch(r"[0-9]{1,9}", part))

    @checked
    def find(self, name: str) -> EngineImage | None:
        params = {"manifests": "1"} if self._version >= _MANIFESTS else {}
        doing = f"inspecting the image {name}"
        options = {"absent_ok": True, "params": params}
        document = self.document("GET", f"/images/{name}/json", doing, **options)
        if not document:
            return None
        entries = [e for e in document.get("Manifests") or () if e.get("Kind") == "image"]
        manifests: dict[bool, dict[Platform, Digest]] = {True: {}, False: {}}
        for entry in reversed(entries):  # without attestations; the first of a platform wins
            platform = Platform.from_json((entry.get("ImageData") or {}).get("Platform"))
            if platform:
                manifests[bool(entry.get("Available"))][platform] = Digest.parse(entry["ID"])
        image = read_image(document)
        complete = not entries or any(entry.get("Available") for entry in entries)
        alone = len(entries) == 1 and not complete
        stored = self._is_manifest_id(document)
        own = self.description().platform if stored and not entries else None
        # The containerd image store shows a digest for every image. Only a pull leaves an index
        # with platforms that Docker lacks.
        pulled = repositories_of(document) if manifests[False] or not stored else ()
        return attrs.evolve(
            image,
            image_id=None if stored else image.image_id,
            pulled=tuple(pulled),
            lacks_own_platform=own is not None and not own.runs(image.platform),
            manifests=manifests[True],
            incomplete_platforms=frozenset(manifests[False]),
            has_complete_platform=complete,
            incomplete=Digest.parse(entries[0]["ID"]) if alone else None,
        )

    def _is_manifest_id(self, document: dict[str, Any]) -> bool:
        """Whether ``Id`` is a manifest's digest, as on the containerd image store.

        Docker 28 adds a ``Descriptor`` to the image; before, only the daemon's info has the store.
        ``overlay2`` is a graphdriver, and ``overlayfs`` its snapshotter.
        """
        driver = (document.get("GraphDriver") or {}).get("Name")
        if "Descriptor" in document or driver == "overlayfs":
            return True
        return driver != "overlay2" and _has_containerd_store(self._info())

    @property
    def reports_every_build(self) -> bool:
        return self._version >= _TELLS_BUILDS

    def event(self, document: dict[str, Any]) -> ImageEvent:
        actor = document["Actor"]
        target = image_digest(actor["ID"])
        if target is None:  # of a pull: the ID is the full name
            return ImageEvent(actor["ID"])
        name = actor["Attributes"].get("name") or ""
        return ImageEvent("" if image_digest(name) else name, target)

    @property
    def saves_by_digest(self) -> bool:
        return self._version >= _SAVES_BY_DIGEST

    def save_params(self, images: Sequence[str], platform: Platform | None) -> list[Params]:
        """Return those of one platform, and of all if Docker lacks that one (docker/cli #7278)."""
        names = [("names", image) for image in images]
        if not platform or self._version < _PLATFORM_SAVE:
            return [names]
        return [[*names, ("platform", json.dumps(platform.to_json()))], names]

    @contextmanager
    def pushing(self, image: Digest, repository: str) -> Iterator[Callable[[], None]]:
        tag = secrets.token_hex(8)
        name = f"{repository}:{tag}"
        noted = note_temporary_name(self.endpoint.url, name, str(image))
        if noted is None:
            raise EngineFailed(
                f"{self.endpoint}: cannot tag {image.short} for a push: no note of the tag can be"
                " written to the cache folder or the temporary folder"
            )

        def push() -> None:
            self._follow(
                f"/images/{repository}/push",
                "pushing",
                params={"tag": tag},
                headers={"X-Registry-Auth": _NO_CREDENTIALS},
                seconds=STREAM_SECONDS,
            )

        try:
            params = {"repo": repository, "tag": tag}
            with self.request("POST", f"/images/{image}/tag", "tagging", params=params):
                pass
            yield push
        finally:
            self._remove_noted(noted)

    @checked
    def remove_temporary(self, name: str, image: str) -> bool:
        """Remove a name but no image; return whether the engine had it.

        A rebuild may have left the image no other name. Docker would then delete the image with
        the name, or refuse to while a container uses it (moby, daemon/images/image_delete.go).
        """
        path, options = f"/images/{name}/json", {"absent_ok": True, "seconds": _UNTAG_SECONDS}
        document = self.document("GET", path, "untagging", **options)
        if document is None:
            return False
        is_placeholder = document.get("Comment") == _PLACEHOLDER
        if image not in {"", document["Id"]} and not is_placeholder:
            return True  # another program has moved the name, so imgload no longer owns it
        if not tags_of(document) and not is_placeholder:
            self._move_to_placeholder(name, document)
        self._delete_name(name)
        return True

    def _move_to_placeholder(self, name: str, document: dict[str, Any]) -> None:
        """Give the name to an empty image, so that its image stays, untagged."""
        repository, _, tag = name.rpartition(":")
        if not self._is_manifest_id(document):  # in the graphdriver store a digest is another name
            for digest in document.get("RepoDigests") or ():
                if digest.startswith(f"{repository}@"):
                    self._delete_name(digest, force="1")  # the tag still keeps the image
        params = {"fromSrc": "-", "repo": repository, "tag": tag, "message": _PLACEHOLDER}
        empty = [bytes(1024)]  # the end of a tar archive
        doing = "importing an empty image"
        self._follow("/images/create", doing, params=params, stream=empty, seconds=_UNTAG_SECONDS)

    def _delete_name(self, name: str, **more: str) -> None:
        params = {"noprune": "1", **more}
        options = {"absent_ok": True, "params": params, "seconds": _UNTAG_SECONDS}
        with self.request("DELETE", f"/images/{name}", "untagging", **options):
            pass

    @checked
    def identity(self) -> str:
        # Machines may share the ID (``/etc/docker/key.json``).
        info = self._info()
        return " ".join(str(dig(info, key)) for key in ("ID", "Name", "DockerRootDir"))

    @checked
    def description(self) -> EngineDescription:
        info = self._info()
        store = "containerd image store," if _has_containerd_store(info) else "graphdriver"
        return EngineDescription(
            version=text_at(info, "ServerVersion"),
            store=f"{store} {text_at(info, 'Driver')}",
            rootless="name=rootless" in (info.get("SecurityOptions") or ()),
            platform=Platform.of(text_at(info, "OSType"), text_at(info, "Architecture")),
        )

    def look_up(self, repository: str) -> None:
        path, doing = f"/distribution/{repository}:none/json", f"looking {repository} up"
        self.document("GET", path, doing, seconds=LOOK_UP_SECONDS)

    def layer_sizes(self, image: Digest) -> list[int]:
        return self._layer_sizes(str(image))


def _has_containerd_store(info: dict[str, Any]) -> bool:
    snapshotter = "io.containerd.snapshotter.v1"
    return any(snapshotter in str(value) for _, value in info.get("DriverStatus") or [])
