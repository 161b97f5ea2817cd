"""Docker (Docker Engine API)."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ClassVar

import attrs

from imgload.core.errors import EngineFailed
from imgload.engines.base import About, Container, EngineImage, ImageEvent
from imgload.engines.discovery.config_files import dig, text_at
from imgload.engines.http import LOOK_UP_SECONDS, STREAM_SECONDS, Answer, save_seconds
from imgload.engines.http_engine import NOT_FOUND, RestEngine, image_digest, read_container, tags_of
from imgload.engines.temporary_tags import TAG, Leftover, note
from imgload.engines.translate import refuse_bad_answer, translated, understood
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

_Params = list[tuple[str, str]]
_PLATFORM_SAVE = (1, 48)
_MANIFESTS = (1, 48)
_SAVES_BY_DIGEST = (1, 44)
"""From Docker 25 on; before, its graphdriver store calls layers by IDs of their own."""
_TELLS_BUILDS = (1, 49)
"""Before, builds by BuildKit were not among the events of one image store or the other (moby
#45404, #47978, #49678)."""
_SNAPSHOTTER = "io.containerd.snapshotter.v1"
_NO_CREDENTIALS = "e30="
"""``{}``; without the header Docker 20.10 refuses a push."""
_ONLY_THE_NAME = {"noprune": "1"}
_UNTAG_SECONDS = 10.0
_PLACEHOLDER = "imgload: an empty image, in place of another that keeps its content"
"""The comment of an image that takes a name over for a moment; see `_move_to_placeholder`."""


class DockerEngine(RestEngine):
    """A Docker daemon, with the graphdriver store or the containerd image store."""

    @property
    def root(self) -> str:
        """The version that the daemon itself prefers."""
        return f"/v{self._wire.version}"

    @property
    def _version(self) -> tuple[int, ...]:
        parts = self._wire.version.split(".")
        return tuple(int(part) for part in parts if re.fullmatch(r"[0-9]{1,9}", part))

    @understood
    def find(self, name: str) -> EngineImage | None:
        params = {"manifests": "1"} if self._version >= _MANIFESTS else {}
        found = self.found(f"/images/{name}/json", f"inspecting the image {name}", params=params)
        return self._image(found) if found else None

    def _image(self, found: dict[str, Any]) -> EngineImage:
        target = Digest.parse(found["Id"])
        listed = list(_manifests(found))
        return EngineImage(
            target=target,
            image_id=None if self._is_manifest_id(found) else target,
            names=tags_of(found),
            platform=Platform.of(
                found.get("Os") or "linux",
                found.get("Architecture") or "",
                found.get("Variant") or "",
            ),
            diff_ids=tuple(map(Digest.parse, (found.get("RootFS") or {}).get("Layers") or ())),
            size=int(found.get("Size") or 0),
            manifests={m.platform: m.digest for m in reversed(listed) if m.whole and m.platform},
            absent=frozenset(m.platform for m in listed if not m.whole and m.platform),
            whole=not listed or any(manifest.whole for manifest in listed),
        )

    def _is_manifest_id(self, found: dict[str, Any]) -> bool:
        """Whether ``Id`` is a manifest's digest: on the containerd image store.

        Docker 28 says it in the image (``Descriptor``); before, only the daemon's info does.
        ``overlay2`` is a graphdriver and no snapshotter.
        """
        if "Descriptor" in found:
            return True
        if (found.get("GraphDriver") or {}).get("Name") == "overlay2":
            return False
        return _has_containerd_store(self._info())

    @property
    def tells_every_build(self) -> bool:
        return self._version >= _TELLS_BUILDS

    event_filters: ClassVar = {"type": ["image"], "event": ["tag", "load", "import", "pull"]}

    def event(self, told: dict[str, Any]) -> ImageEvent:
        """Understand it; a pull's actor is the whole name."""
        actor = told["Actor"]
        target = image_digest(actor["ID"])
        if target is None:
            return ImageEvent(actor["ID"])
        name = actor["Attributes"].get("name") or ""
        return ImageEvent("" if image_digest(name) else name, target)

    @property
    def saves_by_digest(self) -> bool:
        return self._version >= _SAVES_BY_DIGEST

    @contextmanager
    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> Iterator[Iterator[bytes]]:
        doing = f"saving {', '.join(images)}"
        seconds = save_seconds(size)
        with translated(self.endpoint, doing):
            answer = self._ask_to_save(images, platform, partial(self._save, doing, seconds))
        with answer:
            yield self._body(answer)

    def _ask_to_save(
        self, images: Sequence[str], platform: Platform | None, save: Callable[[_Params], Answer]
    ) -> Answer:
        """Ask for one platform, and for all where Docker does not find it (docker/cli #7278)."""
        names = [("names", image) for image in images]
        if platform and self._version >= _PLATFORM_SAVE:
            chosen = [*names, ("platform", json.dumps(platform.to_json()))]
            with suppress(EngineFailed):
                return save(chosen)
        return save(names)

    def _save(self, doing: str, seconds: float, params: _Params) -> Answer:
        return self.ask("GET", "/images/get", doing, params=params, seconds=seconds)

    @contextmanager
    def pushing(self, image: Digest, repository: str) -> Iterator[Callable[[], None]]:
        tag = secrets.token_hex(8)
        name = f"{repository}:{tag}"
        noted = note(self.endpoint.url, name, str(image))
        if noted is None:
            raise EngineFailed(
                f"{self.endpoint}: {image.short} is not tagged for a push, since no note of the tag"
                " could be kept: neither the cache folder nor the temporary folder is writable"
            )
        target = {"repo": repository, "tag": tag}
        try:
            with translated(self.endpoint, "tagging"):
                self.ask("POST", f"/images/{image}/tag", "tagging", params=target).close()
            yield partial(self._push, repository, tag)
        finally:
            self._take_back(Leftover(self.endpoint.url, name, str(image), here=True, note=noted))

    temporary_names = TAG

    @understood
    def remove_temporary(self, name: str, image: str) -> bool:
        """Take a name away, and no image with it; return whether the engine had it.

        A rebuild may have left the image no other name. Docker would then delete the image with
        the name, or refuse to while a container uses it (moby, daemon/images/image_delete.go).
        """
        doing = "untagging"
        found = self.found(f"/images/{name}/json", doing, seconds=_UNTAG_SECONDS)
        if found is None:
            return False
        placeholder = found.get("Comment") == _PLACEHOLDER
        if image not in {"", found["Id"]} and not placeholder:
            return True  # somebody else has moved it: it is not ours any more
        if not tags_of(found) and not placeholder:
            self._move_to_placeholder(name, found)
        self._delete_name(name)
        return True

    def _move_to_placeholder(self, name: str, found: dict[str, Any]) -> None:
        """Give the name to an empty image, so that the image that had it stays without a name."""
        repository, _, tag = name.rpartition(":")
        pushed = [d for d in found.get("RepoDigests") or () if d.startswith(f"{repository}@")]
        if not self._is_manifest_id(found):  # a name of its own on the graphdriver store
            for digest in pushed:
                self._delete_name(digest, force="1")  # the tag still keeps the image
        params = {"fromSrc": "-", "repo": repository, "tag": tag, "message": _PLACEHOLDER}
        doing = "importing an empty image"
        with (
            translated(self.endpoint, doing),
            self.ask(
                "POST",
                "/images/create",
                doing,
                params=params,
                stream=[bytes(1024)],  # the end of a tar archive
                seconds=_UNTAG_SECONDS,
            ) as answer,
        ):
            self._until_pushed(answer)

    def _delete_name(self, name: str, **more: str) -> None:
        doing = "untagging"
        params = {**_ONLY_THE_NAME, **more}
        with (
            translated(self.endpoint, doing),
            self._send(
                "DELETE", f"/images/{name}", params=params, seconds=_UNTAG_SECONDS
            ) as answer,
        ):
            if answer.status != NOT_FOUND:
                refuse_bad_answer(answer, self.endpoint, doing)

    def _push(self, repository: str, tag: str) -> None:
        with (
            translated(self.endpoint, "pushing"),
            self.ask(
                "POST",
                f"/images/{repository}/push",
                "pushing",
                params={"tag": tag},
                headers={"X-Registry-Auth": _NO_CREDENTIALS},
                seconds=STREAM_SECONDS,
            ) as answer,
        ):
            self._until_pushed(answer)

    def _info(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document("GET", "/info", "asking about the daemon")
        return found

    @understood
    def identity(self) -> str:
        """Return the daemon's ID, which may be shared (``/etc/docker/key.json``), and its place."""
        info = self._info()
        return " ".join(str(dig(info, key)) for key in ("ID", "Name", "DockerRootDir"))

    @understood
    def about(self) -> About:
        info = self._info()
        driver = text_at(info, "Driver")
        store = "containerd image store," if _has_containerd_store(info) else "graphdriver"
        return About(
            version=text_at(info, "ServerVersion"),
            store=f"{store} {driver}",
            rootless="name=rootless" in (info.get("SecurityOptions") or ()),
            platform=Platform.of(text_at(info, "OSType"), text_at(info, "Architecture")),
        )

    def look_up(self, repository: str) -> None:
        path, doing = f"/distribution/{repository}:none/json", f"looking {repository} up"
        self.document("GET", path, doing, seconds=LOOK_UP_SECONDS)

    @understood
    def layer_sizes(self, image: Digest) -> list[int]:
        return self._layer_sizes(f"/images/{image}/history")

    @understood
    def containers(self, label: str) -> list[Container]:
        params = {"all": "1", "filters": json.dumps({"label": [label]})}
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
        labels = found["Config"].get("Labels")
        return read_container(found, found["Name"], found["State"]["Status"], labels)


@attrs.frozen
class _Manifest:
    """What Docker's containerd image store tells of one platform of an image."""

    digest: Digest
    platform: Platform | None
    whole: bool


def _manifests(found: dict[str, Any]) -> Iterator[_Manifest]:
    """Yield an image's manifests, attestations left out, in the order of its index."""
    for entry in found.get("Manifests") or ():
        if entry.get("Kind") == "image":
            platform = Platform.from_json((entry.get("ImageData") or {}).get("Platform"))
            yield _Manifest(Digest.parse(entry["ID"]), platform, bool(entry.get("Available")))


def _has_containerd_store(info: dict[str, Any]) -> bool:
    return any(_SNAPSHOTTER in str(value) for _, value in info.get("DriverStatus") or [])
