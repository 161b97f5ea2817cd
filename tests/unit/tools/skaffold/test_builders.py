"""The choice and the command lines of builders; scripts on PATH replace the programs."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest

from imgload.core.errors import (
    BuildFailed,
    ClusterNotFound,
    EngineUnreachable,
    PlatformMissing,
    UsageError,
)
from imgload.engines.endpoint import Endpoint, EngineKind, Tls
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference
from imgload.tools.skaffold.builders import (
    Builder,
    BuilderName,
    Recipe,
    choose,
    publish,
    push,
)
from imgload.tools.skaffold.request import Request
from tests.unit.fakes import LocalEngine

ID = "sha256:" + "a" * 64
RECORDING = """\
echo "$DOCKER_HOST" "$PWD" "${0##*/}" "$@" >>"$CALLS"
for word; do case $word in --iidfile=*|--digestfile=*) printf %s "$ID" >"${word#*=}";; esac; done
case "$1 $2" in
--version*) echo "$VERSION";;
push*) echo "dev: digest: $ID size: 736";;
"manifest inspect") echo "$LIST";;
esac
"""
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


@attrs.frozen
class Bench:
    """A folder that is the whole PATH, and the calls of its programs."""

    folder: Path
    patch: pytest.MonkeyPatch

    def install(self, *programs: str) -> None:
        for name in programs:
            path = self.folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{RECORDING}")
            path.chmod(0o755)

    def engine(self, kind: EngineKind) -> LocalEngine:
        return LocalEngine(self.folder, endpoint=Endpoint(kind, f"unix:///{kind}.sock"))

    def request(self, *platforms: Platform) -> Request:
        reference = Reference.parse("app:dev")
        return Request("app:dev", reference, self.folder, platforms=platforms)

    def calls(self) -> list[list[str]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line.split(" ") for line in lines if "--version" not in line]


def built(builder: Builder, request: Request, *platforms: Platform) -> Digest | None:
    """Run a build to its end."""
    image_id, prepared = builder.build(request, platforms, lambda: "prepared")
    assert prepared == "prepared"
    return image_id


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name, value in {"CALLS": f"{tmp_path}/calls", "ID": ID, "VERSION": "Docker 28"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DOCKER_HOST")
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("programs", "engines", "chosen"),
    [
        (["docker"], ["docker"], "docker"),
        (["docker", "podman"], ["docker", "podman"], "docker"),
        (["docker", "podman"], ["podman"], "podman"),
        (["podman"], ["docker", "podman"], "podman"),
        (["buildah"], ["podman"], "buildah"),
        (["buildah", "podman"], ["podman"], "podman"),
        (["docker"], ["podman"], "docker"),
    ],
)
def test_choose_takes_the_first_installed_builder_whose_engine_answers(
    bench: Bench, programs: Sequence[str], engines: Sequence[EngineKind], chosen: str
) -> None:
    """Docker's client also builds in Podman, if DOCKER_HOST leads there."""
    bench.install(*programs)
    available = [bench.engine(kind) for kind in engines]
    builder = choose(Recipe(), [*available, *available])
    assert builder.program == chosen
    wanted = [e for e in available if e.endpoint.kind == chosen] or [available[-1]]
    assert builder.engines == (wanted[0],) * (1 if chosen == "docker" else 2)


@pytest.mark.parametrize("requested", [None, "docker"])
def test_choose_recognizes_podman_under_the_name_docker(
    bench: Bench, requested: BuilderName | None
) -> None:
    """The package podman-docker installs it; it ignores DOCKER_HOST."""
    bench.install("docker", "podman")
    bench.patch.setenv("VERSION", "podman version 5.4.2")
    engines = [bench.engine("docker"), bench.engine("podman")]
    assert choose(Recipe(builder=requested), engines).program == "podman"


def test_choose_fails_without_any_builder(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"no builder for podman at "):
        choose(Recipe(), [bench.engine("podman")])


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_choose_fails_when_the_requested_builder_is_not_installed(
    bench: Bench, name: BuilderName
) -> None:
    bench.install(*{"docker", "podman", "buildah"} - {name})
    with pytest.raises(UsageError, match=f"--builder {name}: "):
        choose(Recipe(builder=name), [bench.engine("docker"), bench.engine("podman")])


@pytest.mark.parametrize("command", [(), ("make", "image")])
@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_choose_fails_when_the_requested_builders_engine_does_not_answer(
    bench: Bench, name: BuilderName, command: tuple[str, ...]
) -> None:
    bench.install(name)
    with pytest.raises(EngineUnreachable) as caught:
        choose(Recipe(name, command), [bench.engine("docker")])
    assert "podman.socket" in caught.value.hint


def test_choose_allows_a_command_all_engines_unless_a_builder_is_requested(bench: Bench) -> None:
    engines = [bench.engine("docker"), bench.engine("podman")]
    make = ("make", "image")
    assert choose(Recipe(command=make), engines).engines == tuple(engines)
    assert choose(Recipe("podman", make), engines).engines == (engines[1],)


def test_build_runs_docker_in_the_build_context_with_the_discovered_engine(bench: Bench) -> None:
    """Docker's own context may select another engine."""
    bench.install("docker")
    recipe = Recipe(file="app.Dockerfile", target="dev", build_args=("A=1", "B"))
    builder = choose(recipe, [bench.engine("docker")])
    assert built(builder, bench.request(ARM), ARM) is None
    assert bench.calls() == [
        [
            *("unix:///docker.sock", str(bench.folder), "docker", "build", "--tag=app:dev"),
            *("--file=app.Dockerfile", "--target=dev", "--build-arg=A=1", "--build-arg=B"),
            *("--platform=linux/arm64", "."),
        ]
    ]


def test_build_leaves_docker_host_alone_over_tls(bench: Bench) -> None:
    """Docker's client uses a context's certificates only with that context."""
    bench.install("docker")
    engine = bench.engine("docker")
    engine.endpoint = attrs.evolve(engine.endpoint, tls=Tls.in_folder(bench.folder, verify=False))
    built(choose(Recipe(), [engine]), bench.request())
    assert bench.calls()[0][0] == ""


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_build_returns_the_image_id_from_podman_and_buildah(
    bench: Bench, name: BuilderName
) -> None:
    """Their store may differ from that of the socket."""
    bench.install(name)
    builder = choose(Recipe(), [bench.engine("podman")])
    assert built(builder, bench.request()) == Digest.parse(ID)
    words = bench.calls()[0]
    assert words[2:4] == [name, "build"]
    assert {"--tag=app:dev", "."} < set(words)
    assert not Path(words[4].removeprefix("--iidfile=")).exists()


def test_build_runs_a_command_without_a_shell_in_the_current_folder(
    bench: Bench, tmp_path: Path
) -> None:
    bench.install("make")
    bench.patch.chdir(tmp_path / "bin")
    builder = choose(Recipe(command=("make", "a;b", "$IMAGE")), [bench.engine("docker")])
    assert built(builder, bench.request()) is None
    assert bench.calls() == [["", str(tmp_path / "bin"), "make", "a;b", "$IMAGE"]]


def test_an_exception_during_the_build_stops_it(bench: Bench, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = ("/bin/sh", "-c", "echo $$ >$0; exec /bin/sleep 600", str(pid_file))
    builder = choose(Recipe(command=command), [bench.engine("docker")])

    def fail() -> None:
        while not pid_file.exists() or not pid_file.read_text():
            time.sleep(0.01)
        raise ClusterNotFound("no cluster")

    with pytest.raises(ClusterNotFound):
        builder.build(bench.request(), [], fail)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


@pytest.mark.parametrize(
    "recipe",
    [
        lambda: Recipe(command=("make",), file="F"),
        lambda: Recipe(command=("make",), target="t"),
        lambda: Recipe(command=("make",), build_args=("A=1",)),
    ],
)
def test_recipe_refuses_dockerfile_options_for_a_command(recipe: Callable[[], Recipe]) -> None:
    with pytest.raises(UsageError):
        recipe()


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_push_returns_the_digest(bench: Bench, name: BuilderName) -> None:
    bench.install(name)
    assert push(name, bench.engine("docker"), "app:dev") == Digest.parse(ID)
    assert bench.calls()[0][2:4] == [name, "push"]
    assert bench.calls()[0][-1] == "app:dev"


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_push_fails_without_a_digest(bench: Bench, name: BuilderName) -> None:
    """Buildah 1.28 exits with 0 when its push fails."""
    bench.install(name)
    bench.patch.setenv("ID", "")
    with pytest.raises(BuildFailed):
        push(name, bench.engine("docker"), "app:dev")


def test_publish_uses_and_removes_a_temporary_manifest_list(bench: Bench) -> None:
    """An existing list would grow with each build."""
    bench.install("podman")
    entries = '{"platform":{"os":"linux","architecture":"%s"}}'
    listed = ",".join(entries % name for name in ("amd64", "arm64"))
    bench.patch.setenv("LIST", f'{{"manifests":[{listed}]}}')
    builder = choose(Recipe(), [bench.engine("podman")])
    assert publish(builder, bench.request(AMD, ARM)) == Digest.parse(ID)
    words = [call[3:] for call in bench.calls()]
    name = words[0][1].removeprefix("--manifest=")
    assert "--platform=linux/amd64,linux/arm64" in words[0]
    assert words[1] == ["manifest", "inspect", name]
    assert words[2][-2:] == [name, "docker://docker.io/library/app:dev"]
    assert words[3] == ["manifest", "rm", name]


@pytest.mark.parametrize("listed", ["", "[]", '{"manifests":[{"platform":null}]}'])
def test_publish_fails_when_a_platform_is_missing(bench: Bench, listed: str) -> None:
    """Podman 4.3 may use another platform's image from its cache."""
    bench.install("podman")
    bench.patch.setenv("LIST", listed)
    builder = choose(Recipe(), [bench.engine("podman")])
    with pytest.raises(PlatformMissing, match="linux/amd64, linux/arm64"):
        publish(builder, bench.request(AMD, ARM))
    assert [call[3] for call in bench.calls()] == ["build", "manifest", "manifest"]
    assert bench.calls()[-1][4] == "rm"


def test_publish_refuses_all_platforms(bench: Bench) -> None:
    bench.install("docker")
    request = attrs.evolve(bench.request(), every_platform=True)
    with pytest.raises(UsageError, match="all"):
        publish(choose(Recipe(), [bench.engine("docker")]), request)
