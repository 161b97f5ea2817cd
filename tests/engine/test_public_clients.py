"""Public clients from Debian: what they write is loaded, and they push to and pull from imgload."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import attrs
import pytest

import imgload
from imgload.core.errors import ArchiveInvalid, NotAnImage
from imgload.oci.digest import Digest
from imgload.oci.document import MANIFEST
from imgload.registry.blob_store import BlobStore, StoredBlob
from imgload.registry.read_server import serving
from imgload.registry.server import receiving
from tests.engine.conftest import Images, cases, cri_id, forget, unique
from tests.engine.kinds import Made, layer, old
from tests.lab import Lab
from tests.lab.shell import CommandError
from tests.lab.tools import Tools
from tests.unit.archives import Layout, oci, pack, write_folder
from tests.unit.registry.test_distribution_push import StoringSink
from tests.unit.sources.test_push import IMAGE, NOTHING, Nodes, pushed

CLUSTER = "lab-d21"
SECRET = "0123456789abcdef" * 2


@attrs.frozen
class Bench:
    """Tools in a folder that has an image as ``base.tar``; `served` is its name in a registry."""

    tools: Tools
    made: Made
    served: str

    def __call__(self, program: str, *args: str) -> str:
        return self.tools.run(program, *args)

    def image_id(self, reference: str) -> str:
        """Return the ID of an image that skopeo reads."""
        config = self("skopeo", "inspect", "--config", "--raw", reference)
        return str(Digest.of(config.encode()))


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[Bench]:
    made, store = Made(unique("public"), compression="gzip"), BlobStore()
    (tmp_path / "base.tar").write_bytes(pack(old([attrs.evolve(made, compression="")])))
    (tmp_path / "layer.tar").write_bytes(layer())
    (tmp_path / "file.txt").write_text("a file")
    for raw in (*made.blobs, made.config):
        blob = StoredBlob(len(raw))
        store.add_blob(Digest.of(raw), blob)
        blob.append(raw)
    digest = Digest.of(made.manifest)
    store.add_document(digest, MANIFEST, made.manifest)
    store.add_name("node", f"docker.io/library/{made.name}", digest)
    store.complete()
    with serving("127.0.0.1", store, {SECRET: "node"}, lambda *_: None) as port:
        yield Bench(Tools(lab.paths, tmp_path), made, f"127.0.0.1:{port}/{SECRET}/{made.name}")
    store.close()


Maker = Callable[[Bench], tuple[str, str]]
"""Writes an image; returns skopeo's name for it, and the text that selects it."""


def crane_pull(form: str) -> Maker:
    def make(bench: Bench) -> tuple[str, str]:
        bench("crane", "pull", "--insecure", "--format", form, bench.served, "out")
        return ("oci:out" if form == "oci" else "docker-archive:out"), ""

    return make


def crane_append(bench: Bench) -> tuple[str, str]:
    options = ("--new_tag", "public:appended", "--output", "out")
    bench("crane", "append", "--new_layer", "layer.tar", *options)
    return "docker-archive:out", "public:appended"


def crane_mutate(bench: Bench) -> tuple[str, str]:
    options = ("--insecure", "--tag", "public:mutated", "--output", "out")
    bench("crane", "mutate", *options, "--label", "a=b", bench.served)
    return "docker-archive:out", "public:mutated"


def skopeo(target: str, *options: str, text: str = "") -> Maker:
    def make(bench: Bench) -> tuple[str, str]:
        reference = target.format(name=bench.made.name)
        policy = ("--insecure-policy", "copy", *options)
        bench("skopeo", *policy, "docker-archive:base.tar", reference)
        return reference, text.format(name=bench.made.name)

    return make


def skopeo_several(bench: Bench) -> tuple[str, str]:
    """Two images in one layout, of which the tag selects one."""
    skopeo("oci:out:v1")(bench)
    bench("umoci", "config", "--image=out:v1", "--tag=v2", "--config.user=1000")
    return "oci:out:v2", "v2"


def oras_cp(bench: Bench) -> tuple[str, str]:
    """An image beside an artifact and its own attachment."""
    bench("oras", "cp", "--from-plain-http", "--to-oci-layout", bench.served, "out:v1")
    bench("oras", "push", "--oci-layout", "out:files", "file.txt")
    kind = ("--artifact-type", "application/vnd.acme.sbom")
    bench("oras", "attach", "--oci-layout", "out:v1", *kind, "file.txt")
    return "oci:out:v1", "v1"


def oras_backup(output: str) -> Maker:
    def make(bench: Bench) -> tuple[str, str]:
        bench("oras", "backup", "--plain-http", "--output", output, bench.served)
        tag = bench.made.name.partition(":")[2]
        form = "oci-archive" if output.endswith(".tar") else "oci"
        return f"{form}:{output}:{tag}", tag

    return make


def umoci_new(bench: Bench) -> tuple[str, str]:
    bench("umoci", "init", "--layout=out")
    bench("umoci", "new", "--image=out:v1")
    bench("umoci", "insert", "--image=out:v1", "file.txt", "/file.txt")
    return "oci:out:v1", "v1"


def umoci_repack(bench: Bench) -> tuple[str, str]:
    skopeo("oci:out:v1")(bench)
    bench("umoci", "unpack", "--image=out:v1", "bundle")
    (bench.tools.folder / "bundle/rootfs/added").write_text("added")
    bench("umoci", "repack", "--image=out:v2", "bundle")
    return "oci:out:v2", "v2"


def buildah(target: str, text: str = "") -> Maker:
    def make(bench: Bench) -> tuple[str, str]:
        reference = target.format(name=bench.made.name)
        bench("buildah", "pull", "docker-archive:base.tar")
        bench("buildah", "push", f"localhost/{bench.made.name}", reference)
        return reference, text.format(name=bench.made.name)

    return make


def buildah_list(target: str) -> Maker:
    def make(bench: Bench) -> tuple[str, str]:
        bench("buildah", "pull", "docker-archive:base.tar")
        bench("buildah", "manifest", "create", "list")
        stored = f"containers-storage:localhost/{bench.made.name}"
        bench("buildah", "manifest", "add", "list", stored)
        bench("buildah", "manifest", "push", "--all", "list", target)
        return target, "" if target.startswith("dir:") else "v1"

    return make


MAKERS: dict[str, Maker] = {
    "crane pull": crane_pull("tarball"),
    "crane pull, legacy": crane_pull("legacy"),
    "crane pull, oci": crane_pull("oci"),
    "crane append": crane_append,
    "crane mutate": crane_mutate,
    "skopeo oci": skopeo("oci:out:v1", text="v1"),
    "skopeo oci, two images": skopeo_several,
    "skopeo oci, full name": skopeo("oci:out:docker.io/library/{name}", text="{name}"),
    "skopeo oci, no tag": skopeo("oci:out"),
    "skopeo oci, zstd": skopeo("oci:out:v1", "--dest-compress-format=zstd", text="v1"),
    "skopeo oci-archive": skopeo("oci-archive:out.tar:{name}", text="{name}"),
    "skopeo oci-archive, no tag": skopeo("oci-archive:out.tar"),
    "skopeo docker-archive": skopeo("docker-archive:out.tar:{name}", text="{name}"),
    "skopeo docker-archive, no tag": skopeo("docker-archive:out.tar"),
    "skopeo dir": skopeo("dir:out"),
    "skopeo dir, oci": skopeo("dir:out", "--format=oci", "--dest-compress"),
    "oras cp": oras_cp,
    "oras backup": oras_backup("out"),
    "oras backup, tar": oras_backup("out.tar"),
    "umoci new": umoci_new,
    "umoci repack": umoci_repack,
    "buildah oci": buildah("oci:out:v1", "v1"),
    "buildah oci-archive": buildah("oci-archive:out.tar:{name}", "{name}"),
    "buildah docker-archive": buildah("docker-archive:out.tar:{name}", "{name}"),
    "buildah dir": buildah("dir:out"),
    "buildah manifest push": buildah_list("oci:out:v1"),
    "buildah manifest push, archive": buildah_list("oci-archive:out.tar:v1"),
    "buildah manifest push, dir": buildah_list("dir:out"),
}
SHORT = ("crane pull", "skopeo oci, two images", "oras cp", "umoci new", "buildah manifest push")


@pytest.mark.parametrize("maker", cases(MAKERS, SHORT))
def test_an_image_that_a_public_client_writes_is_loaded(
    lab: Lab, bench: Bench, maker: Maker
) -> None:
    """With the image ID that skopeo reads; a tag without a repository selects it."""
    reference, text = maker(bench)
    source = bench.tools.folder / reference.split(":")[1]
    name, node = unique("loaded"), lab.cluster(CLUSTER).nodes[0]
    report = imgload.load([text] if text else [], cluster=CLUSTER, source=source, tag=name)
    assert report.ok
    assert [str(image.image_id) for image in report.images] == [bench.image_id(reference)]
    assert cri_id(node, f"docker.io/library/{name}") == bench.image_id(reference)
    forget(node, f"docker.io/library/{name}")


def test_a_root_file_system_is_refused_with_the_command_that_makes_an_image(
    lab: Lab, bench: Bench
) -> None:
    """`crane export` writes one, which containerd would not import either."""
    bench("crane", "export", "--insecure", bench.served, "out.tar")
    source, name = bench.tools.folder / "out.tar", unique("imported")
    with pytest.raises(ArchiveInvalid) as caught:
        imgload.load([], cluster=CLUSTER, source=source)
    command = caught.value.hint.rpartition("docker ")[2]
    assert command == "import FILE IMAGE"
    words = {"FILE": str(source), "IMAGE": name}
    lab.docker.cli(*(words.get(word, word) for word in shlex.split(command)))
    assert imgload.load([name], cluster=CLUSTER, source=lab.docker.url).ok
    forget(lab.cluster(CLUSTER).nodes[0], f"docker.io/library/{name}")
    lab.docker.remove_image(name)


def test_an_artifact_alone_is_refused(bench: Bench) -> None:
    """`oras push` writes no image."""
    bench("oras", "push", "--oci-layout", "out:v1", "file.txt")
    with pytest.raises(NotAnImage) as caught:
        imgload.load([], cluster=CLUSTER, source=bench.tools.folder / "out")
    assert caught.value.content == "artifact"


def push_by_crane(bench: Bench, repository: str) -> None:
    bench("crane", "push", "--insecure", "image", f"{repository}:v1")


def push_by_skopeo(bench: Bench, repository: str) -> None:
    target = f"docker://{repository}:v1"
    bench("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "oci:image", target)


def push_by_buildah(bench: Bench, repository: str) -> None:
    image = bench("buildah", "pull", "oci:image").strip()
    bench("buildah", "push", "--tls-verify=false", image, f"docker://{repository}:v1")


def push_by_oras(bench: Bench, repository: str) -> None:
    """oras reads the manifest that it has pushed, which the receiver does not serve."""
    source = ("--from-oci-layout", f"image@{IMAGE.digest}")
    with pytest.raises(CommandError, match="not found"):
        bench("oras", "cp", *source, "--to-plain-http", f"{repository}:v1")


PUSHERS = {
    "crane": push_by_crane,
    "skopeo": push_by_skopeo,
    "oras": push_by_oras,
    "buildah": push_by_buildah,
}


@pytest.mark.parametrize("client", cases(PUSHERS, ("crane", "skopeo", "oras")))
def test_a_public_client_pushes_into_the_receiver(
    bench: Bench, client: Callable[[Bench, str], None]
) -> None:
    """The node gets a layout with the image, also if the client compresses the layers again."""
    write_folder(bench.tools.folder / "image", oci(IMAGE))
    nodes = Nodes.holding(node=NOTHING)
    nodes.begin(pushed(exact=False, known={}))
    with receiving(nodes) as repository:
        client(bench, repository)
        nodes.end()
        nodes.layout.close()
    nodes.members("node")  # waits for its end
    assert Layout.read(bytes(nodes.streams["node"])).image_id() == IMAGE.image_id


def test_oras_pushes_an_artifact_into_the_receiver(bench: Bench) -> None:
    """A registry need not know the types of what it receives."""
    sink = StoringSink()
    with receiving(sink) as repository:
        bench("oras", "push", "--plain-http", f"{repository}:v1", "file.txt")
    [manifest] = sink.manifests.values()
    [described] = json.loads(manifest)["layers"]
    assert sink.blobs[Digest.parse(described["digest"])] == b"a file"


class RefusingSink(StoringSink):
    """Takes no blob."""

    uploads = 0

    def upload(self, _digest: Digest | None, _size: int | None) -> NoReturn:
        self.uploads += 1
        raise ArchiveInvalid("no blob is taken")


def test_docker_does_not_repeat_a_refused_upload(lab: Lab, images: Images) -> None:
    """The graphdriver store would for 50 seconds if the error had a code of the specification."""
    sink = RefusingSink()
    with receiving(sink) as repository:
        images.build(lab.docker, f"{repository}:v1")
        with pytest.raises(CommandError):
            lab.docker.cli("push", f"{repository}:v1")
    assert sink.uploads == 1


def pull_by_crane(bench: Bench) -> None:
    options, name = ("--insecure",), bench.served
    assert bench("crane", "manifest", *options, name).encode() == bench.made.manifest
    assert bench("crane", "digest", *options, name).strip() == str(Digest.of(bench.made.manifest))
    assert bench("crane", "ls", *options, name.rpartition(":")[0]).split() == [tag_of(name)]
    bench("crane", "validate", *options, "--remote", name)
    assert bench("crane", "config", *options, name).encode() == bench.made.config


def pull_by_skopeo(bench: Bench) -> None:
    reference, options = f"docker://{bench.served}", ("--tls-verify=false",)
    shown = json.loads(bench("skopeo", "inspect", *options, reference))
    assert shown["Digest"] == str(Digest.of(bench.made.manifest))
    assert shown["RepoTags"] == [tag_of(bench.served)]
    policy = ("--insecure-policy", "copy", "--src-tls-verify=false")
    bench("skopeo", *policy, reference, "oci:pulled:v1")
    assert bench.image_id("oci:pulled:v1") == bench.made.image_id


def pull_by_oras(bench: Bench) -> None:
    name, options = bench.served, ("--plain-http",)
    assert bench("oras", "manifest", "fetch", *options, name).encode() == bench.made.manifest
    assert bench("oras", "repo", "tags", *options, name.rpartition(":")[0]).split() == [
        tag_of(name)
    ]
    discovered = json.loads(bench("oras", "discover", *options, "--format=json", name))
    assert not discovered.get("referrers")
    blob = f"{name.rpartition(':')[0]}@{Digest.of(bench.made.blobs[0])}"
    bench("oras", "blob", "fetch", *options, "--output", "blob", blob)
    assert (bench.tools.folder / "blob").read_bytes() == bench.made.blobs[0]
    bench("oras", "pull", *options, name)


def pull_by_buildah(bench: Bench) -> None:
    pulled = bench("buildah", "pull", "--tls-verify=false", bench.served).strip()
    assert f"sha256:{pulled}" == bench.made.image_id


def tag_of(name: str) -> str:
    return name.rpartition(":")[2]


PULLERS = {
    "crane": pull_by_crane,
    "skopeo": pull_by_skopeo,
    "oras": pull_by_oras,
    "buildah": pull_by_buildah,
}


@pytest.mark.parametrize("client", cases(PULLERS, ("crane", "skopeo", "oras")))
def test_a_public_client_pulls_from_the_read_side(
    bench: Bench, client: Callable[[Bench], None]
) -> None:
    """Below a node's secret, which is the beginning of the repository's name."""
    client(bench)


@pytest.mark.parametrize("engine", ["podman", pytest.param("docker", marks=pytest.mark.long)])
def test_an_engine_pulls_from_the_read_side(lab: Lab, bench: Bench, engine: str) -> None:
    """Docker knows 127.0.0.1 as an address without TLS."""
    target = lab.engine(engine)
    options = ("--tls-verify=false",) if engine == "podman" else ()
    target.cli("pull", *options, bench.served)
    assert target.image_id(bench.served) == bench.made.image_id
    target.remove_image(bench.served)
