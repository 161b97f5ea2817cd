"""A node whose pods run on Docker, through cri-dockerd or the kubelet's dockershim.

Docker's graphdriver store contains an image only with all of its layers, and a name refers to the
image ID: no failed load leaves a name, and there is nothing to roll back. cri-dockerd's answers are
those of ``docker image inspect`` (cri-dockerd, core/image.go).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import attrs

from imgload.clusters.nodes import kubelet
from imgload.clusters.nodes.base import ArchiveFormat, NameChange, NodeRuntime, PreviousNames
from imgload.clusters.nodes.batch import WHILE_DISK_FILLS, Output, keepalive_command, with_reason
from imgload.clusters.nodes.containerd import (
    Command,
    ContentStore,
    crictl_command,
    inspect_image,
    parse_inspect,
)
from imgload.clusters.nodes.kubelet import Kubelet
from imgload.clusters.nodes.survey import (
    NamedImage,
    NodeTraits,
    Survey,
    SurveyQuery,
    parse_free,
    parse_space,
    read_config,
)
from imgload.core.errors import (
    ArchiveInvalid,
    ImgloadError,
    NodeError,
    NodeUnusable,
    UsageError,
    reason,
)
from imgload.core.parallel import result_or_error
from imgload.engines.base import Chunk
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import dig, load_json, text_at
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, pinned

LABELS = "/var/lib/imgload/loaded"
"""The folder on the node with a file for each image that imgload loaded, named after its ID: the
times and names, since an image in Docker's store cannot be labeled."""
_CONTAINERD_STORE = "io.containerd.snapshotter.v1"
_INFO = with_reason(("docker", "info", "--format", "{{json .}}"))
_IMAGES = r"""
ids=$(docker image ls --quiet --no-trunc) || exit
[ -z "$ids" ] || docker image inspect --format "$1" $(printf '%s\n' "$ids" | sort -u) || [ $? = 1 ]
"""
"""Prints all images. ``inspect`` fails if one was removed meanwhile, and prints the others."""
_FORMAT = (
    '{"id":{{json .Id}},"tags":{{json (index . "RepoTags")}},'
    '"digests":{{json (index . "RepoDigests")}},"rootfs":{{json (index . "RootFS")}},'
    '"created":{{json (index . "Created")}}}'
)
"""``index`` is null for a key that Docker omits, such as the time of creation if the config has
none; ``.Created`` fails, and then nothing is printed about the image."""
IMAGES = with_reason(("sh", "-c", _IMAGES, "imgload", _FORMAT))
_LOAD = r"""
answer=$(docker system dial-stdio) || exit
case $answer in
*'"error":'*) ;;
'HTTP/1.1 200 '*) exit 0 ;;
esac
printf '%s\n' "$answer" >&2
sleep 0.3
exit 1
"""
"""Sends a request to Docker. ``docker load`` ends only with its input, whose end some proxies do
not pass on, and takes a broken connection for the end; a request contains its own end. The pause
lets the output of a failure through first, since Podman drops it when the input breaks."""
_REQUEST = (
    b"POST /images/load?quiet=1 HTTP/1.1\r\n"
    b"Host: docker\r\n"
    b"Content-Type: application/x-tar\r\n"
    b"Transfer-Encoding: chunked\r\n"
    b"Connection: close\r\n"
    b"\r\n"
)
_FROM_FOLDER = """
folder=$1
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" -cf - . | docker image load --quiet
"""
_LABEL = f"""
time=$1
shift
mkdir -p {LABELS} && cd {LABELS} || exit
while [ $# -ge 2 ]; do
    echo "$time $2" >>"$1"
    shift 2
done
"""
_ERROR = re.compile(r'"(?:error|message)":("(?:[^"\\]|\\.)*")')
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})")


@attrs.define(eq=False, repr=False)
class DockerNode(NodeRuntime):
    """A node whose kubelet reaches Docker at the CRI endpoint `endpoint`."""

    runtime_name: ClassVar[str] = "docker"
    endpoint: str = "unix:///var/run/cri-dockerd.sock"
    _root: str = "/var/lib/docker"
    _driver: str = "overlay2"

    @property
    def archive_format(self) -> ArchiveFormat:
        return "docker"

    @property
    def keeps_manifests(self) -> bool:
        return False

    def survey(self, question: SurveyQuery) -> Survey:
        self.require_running()
        return self._read(question, self.run_all(*self._commands(question)))

    def _commands(self, question: SurveyQuery) -> list[list[Sequence[str]]]:
        """Return the commands whose output `_read` parses, in groups to run in parallel."""
        configs = f"{self.image_folder}/imagedb/content/sha256"
        return [
            [inspect_image(name) for name in question.names if question.asks_cri],
            [
                _INFO,
                ("df", "-Pk", self._root),
                kubelet.READ,
                *(("cat", f"{configs}/{image_id.hex}") for image_id in question.image_ids),
                IMAGES,
            ],
        ]

    @property
    def image_folder(self) -> str:
        """The folder of the configs and the properties of layers (moby, image/fs.go)."""
        return f"{self._root}/image/{self._driver}"

    def _read(
        self, question: SurveyQuery, outputs: Sequence[Output], *, moved: bool = False
    ) -> Survey:
        """Parse the outputs of `_commands`; run them again once if Docker's files are elsewhere."""
        names = question.names if question.asks_cri else ()
        answers, (info, space, settings, *blobs, listed) = (
            outputs[: len(names)],
            outputs[len(names) :],
        )
        with self.naming_node_in_errors():
            document = parse_info(info)
            images = parse_images(listed)
            cri = zip(names, map(parse_inspect, answers), strict=True)
        store = text_at(document, "DockerRootDir"), text_at(document, "Driver")
        if store != (self._root, self._driver) and not moved:
            self._root, self._driver = store
            return self._read(question, self.run_all(*self._commands(question)), moved=True)
        total, free = parse_space(space.text) or (None, None)
        configs = map(read_config, question.image_ids, blobs)
        records, wanted = records_of(images), {*question.image_ids, *question.targets}
        return Survey(
            traits=NodeTraits(
                version=parse_version(text_at(document, "ServerVersion")),
                snapshotter=self._driver,
                platform=platform_of(document),
                free=free,
                total=total,
                kubelet=Kubelet.parse(settings.text),
                runtime="Docker",
            ),
            records={n: t for n, t in records.items() if n in question.names or t in wanted},
            content=content_of(images),
            snapshots=frozenset(chain for i in images for chain in chain_ids(i.diff_ids)),
            configs={config.digest: config for config in configs if config},
            cri={name: answer for name, answer in cri if answer is not None},
        )

    def import_layout(
        self, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery
    ) -> Survey:
        """Load the docker-archive in a layout; `platform` is that of each config."""
        del platform
        self.before = before = PreviousNames()
        if not self.engine.streams_exec:
            return self._import_by_copy(layout, question)
        command = ("sh", "-c", _LOAD)
        return self._change(command, "docker load", question, before, _request(layout))

    def _import_by_copy(self, layout: Iterable[Chunk], question: SurveyQuery) -> Survey:
        with self.temporary_folder() as folder:
            self.run(["mkdir", "-p", folder])
            self.engine.put_archive(self.container.id, folder, layout)
            command = keepalive_command(_FROM_FOLDER, WHILE_DISK_FILLS, folder)
            return self._change(command, "docker load", question, self.before)

    def tag(
        self, image: NamedImage, existing: str, target: Digest, before: PreviousNames
    ) -> Survey:
        """Tag an image by its ID, whichever names it has by now."""
        del existing
        command = ("docker", "image", "tag", str(target), image.name)
        return self._change(command, "docker tag", SurveyQuery.about([image]), before)

    def _change(
        self,
        command: Sequence[str],
        action: str,
        question: SurveyQuery,
        before: PreviousNames,
        stdin: Iterable[Chunk] | None = None,
    ) -> Survey:
        """Run a command, label the loaded images, and survey the node, all in one exec."""
        labels = label_commands(question.loaded)
        change = NameChange(action, command, IMAGES, _names, stdin)
        outputs = self.run_change(change, [labels, *self._commands(question)], before)
        return self._read(question, outputs[len(labels) :])

    def _failure(self, status: int, message: str, action: str) -> NodeError:
        return super()._failure(status, _error_of(message) or message, action)

    @property
    def pin_requirement(self) -> str:
        return "images in Docker cannot be pinned"

    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        self.run_all(label_commands(loaded))

    def damaged_blobs(self, name: str) -> list[Digest]:
        """Return the layers and the config of an image that Docker cannot recreate.

        Docker saves the image to its disk meanwhile.
        """
        from imgload.clusters.nodes.saved import damaged_layers  # noqa: PLC0415 - start-up

        with self.naming_node_in_errors():
            images = parse_images(self.run_all([IMAGES])[0])
        for image in images:
            if name in image.names:
                save = ("docker", "image", "save", str(image.image_id))
                digests = (image.image_id, *image.diff_ids)
                return damaged_layers(self, name, save, self._root, digests)
        return []

    def repair_hint(self, name: str, damaged: Sequence[Digest] = ()) -> str:  # noqa: ARG002
        from imgload.clusters.nodes.saved import repair_hint  # noqa: PLC0415 - start-up

        return repair_hint(self.exec_command("docker", "image", "rm", name))

    def discard_layers(self, names: Sequence[str]) -> None:
        """Do nothing: Docker stores layers only as unpacked files."""

    def images(self) -> Mapping[str, Digest]:
        with self.naming_node_in_errors():
            images = parse_images(self.run_all([IMAGES])[0])
        return records_of(images)

    def untag(self, names: Sequence[str]) -> None:
        self.run(("docker", "image", "rm", *names))

    def remove(self, names: Sequence[str]) -> None:
        self.untag(names)

    def free_bytes(self) -> int | None:
        outputs = result_or_error(lambda: self.run_all([("df", "-Pk", self._root)]))
        return None if isinstance(outputs, ImgloadError) else parse_free(outputs[0].text)

    @property
    def log_command(self) -> str:
        return self.exec_command("journalctl", "-u", "docker", "--no-pager", "-n", "50")

    @property
    def list_command(self) -> str:
        return self.exec_command("docker", "image", "ls")

    def resolve_command(self, command: Sequence[str]) -> Command:
        program, *arguments = command
        if program == "crictl":
            return crictl_command((program,), self.endpoint, arguments)
        return tuple(command)


@attrs.frozen
class StoredImage:
    """An image in Docker's store; `names` refer to it, with the targets that they stand for."""

    image_id: Digest
    names: Mapping[str, Digest]
    diff_ids: tuple[Digest, ...]
    created: str = ""

    @property
    def records(self) -> dict[str, Digest]:
        """All names: Docker also finds an image by its ID."""
        return {str(self.image_id): self.image_id, **self.names}


def records_of(images: Iterable[StoredImage]) -> dict[str, Digest]:
    """Return the names of images, with the targets that they stand for."""
    return {name: target for image in images for name, target in image.records.items()}


def _names(output: Output) -> dict[str, Digest]:
    return records_of(parse_images(output))


def _request(archive: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield a request to load an archive, of which Docker uses nothing if it breaks off."""
    yield _REQUEST
    for chunk in archive:
        if chunk:
            yield b"%x\r\n" % len(chunk)
            yield chunk
            yield b"\r\n"
    yield b"0\r\n\r\n"


def _error_of(answer: str) -> str:
    """Return the error in Docker's answer to a request; empty without one."""
    errors = _ERROR.findall(answer)
    with suppress(ValueError):
        return str(json.loads(errors[-1])) if errors else ""
    return ""


def parse_info(output: Output) -> Any:
    """Return the document of ``docker info``; NodeUnusable if Docker does not answer.

    The client of Docker 20.10 then exits with 0; that of 28 with 1, and prints the reason below the
    document.
    """
    first, _, rest = output.text.partition("\n")
    document = _json(first.encode())
    errors = dig(document, "ServerErrors")
    if output.exit_status or errors or not text_at(document, "DockerRootDir"):
        why = "; ".join(map(str, errors)) if isinstance(errors, list) else reason(rest or first)
        raise NodeUnusable(f"Docker does not answer: {why or 'docker info failed'}")
    if _CONTAINERD_STORE in str(dig(document, "DriverStatus")):
        what = "its Docker has changed to the containerd image store"
        raise NodeUnusable(what, hint="run the command again")
    return document


def platform_of(info: Any) -> Platform:
    """Return the platform of a node from the document of ``docker info``."""
    return Platform.of(text_at(info, "OSType"), text_at(info, "Architecture"))


def parse_version(text: str) -> tuple[int, int]:
    """Return major and minor of Docker's version, or (0, 0)."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def parse_images(output: Output) -> list[StoredImage]:
    """Parse the output of `IMAGES`; NodeUnusable if Docker does not list its images."""
    if output.exit_status:
        raise NodeUnusable(f"Docker does not list its images: {reason(output.text)}")
    documents = (_json(line) for line in output.stdout.splitlines() if line.startswith(b"{"))
    return [image for document in documents if (image := _stored_image(document))]


def _stored_image(document: Any) -> StoredImage | None:
    layers = dig(document, "rootfs", "Layers") or []
    try:
        image_id, diff_ids = Digest.parse(dig(document, "id")), tuple(map(Digest.parse, layers))
    except (ArchiveInvalid, TypeError):
        return None
    names: dict[str, Digest] = {}
    lists = (dig(document, "tags"), dig(document, "digests"))
    for text in (text for texts in lists if isinstance(texts, list) for text in texts):
        with suppress(UsageError):
            name = Reference.parse(text).record
            names[name] = pinned(name) or image_id
    return StoredImage(image_id, names, diff_ids, text_at(document, "created"))


def _json(data: bytes) -> Any:
    try:
        return load_json(data, most=None)
    except ValueError:
        return None


def content_of(images: Sequence[StoredImage]) -> ContentStore:
    """Return a store that has the configs and the uncompressed layers of images."""
    targets = [(t, image) for image in images for t in {image.image_id, *image.names.values()}]
    layers = {target: image.diff_ids for target, image in targets}
    return ContentStore(
        blobs=frozenset(layers).union(*layers.values()),
        configs={target: image.image_id for target, image in targets},
        layers=layers,
    )


def label_commands(loaded: Sequence[tuple[str, Digest]]) -> list[Command]:
    """Return the command that notes which images imgload loaded, by their names and image IDs."""
    if not loaded:
        return []
    words = (word for name, image_id in loaded for word in (image_id.hex, name))
    return [("sh", "-c", _LABEL, "imgload", f"{time.time():.3f}", *words)]
