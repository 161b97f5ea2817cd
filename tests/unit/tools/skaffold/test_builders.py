"""The choice, the command lines and the processes of builders; scripts on PATH replace them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from imgload.core.errors import (
    BuildFailed,
    ClusterNotFound,
    EngineUnreachable,
    PlatformMissing,
    UsageError,
)
from imgload.core.state import RUN_FOLDER
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
    read,
    run,
    run_and_read,
    temporary_file,
)
from imgload.tools.skaffold.layout import BuildFolder
from imgload.tools.skaffold.request import Request
from tests.unit.fakes import LocalEngine

ID = "sha256:" + "a" * 64
RECORDING = """\
echo "$DOCKER_HOST" "$PWD" "${0##*/}" "$@" >>"$CALLS"
for word; do case $word in --iidfile=*|--digestfile=*) printf %s "$ID" >"${word#*=}";; esac; done
for word; do case $word in --metadata-file=*) printf %s "$METADATA" >"${word#*=}";; esac; done
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
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
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


@pytest.mark.parametrize("text", ["sha256:" + "a" * 64, "a" * 64, "a" * 64 + "\n"])
def test_build_accepts_ids_with_and_without_the_algorithm(bench: Bench, text: str) -> None:
    """Podman has printed IDs without it."""
    bench.install("podman")
    bench.patch.setenv("ID", text)
    builder = choose(Recipe(), [bench.engine("podman")])
    assert built(builder, bench.request()) == Digest("sha256", "a" * 64)


@pytest.mark.parametrize("text", ["", "None", "sha256:xyz"])
def test_build_returns_no_id_for_other_text(bench: Bench, text: str) -> None:
    bench.install("podman")
    bench.patch.setenv("ID", text)
    assert built(choose(Recipe(), [bench.engine("podman")]), bench.request()) is None


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


def test_publish_returns_the_digest_in_the_metadata_of_buildx(bench: Bench) -> None:
    """The metadata also has the digests of other documents."""
    bench.install("docker")
    other = "sha256:" + "b" * 64
    metadata = {"buildx.build.provenance": {"digest": other}, "containerimage.digest": ID}
    bench.patch.setenv("METADATA", json.dumps(metadata, indent=2))
    builder = choose(Recipe(), [bench.engine("docker")])
    assert publish(builder, bench.request(AMD, ARM)) == Digest.parse(ID)
    [call] = bench.calls()
    assert call[3:5] == ["buildx", "build"]
    assert "--platform=linux/amd64,linux/arm64" in call


def outside(bench: Bench, driver: str = "kubernetes") -> Builder:
    """Return Docker's builder of a user who has selected one of buildx with a driver."""
    bench.install("docker")
    path = bench.folder / "docker/buildx/instances/outside"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"Name": "outside", "Driver": driver}))
    bench.patch.setenv("BUILDX_BUILDER", "outside")
    return choose(Recipe(), [bench.engine("docker")])


@pytest.mark.parametrize(("driver", "foreign"), [("kubernetes", "outside"), ("docker", None)])
def test_choose_returns_the_builder_outside_the_engine(
    bench: Bench, driver: str, foreign: str | None
) -> None:
    assert outside(bench, driver).foreign == foreign


def test_an_output_replaces_the_store_of_the_engine(bench: Bench) -> None:
    """It is a line of CSV: the temporary folder may have any name."""
    builder = outside(bench)
    folder = BuildFolder(bench.folder / 'a,"b')
    builder.build(bench.request(), [], lambda: None, folder.output)
    [call] = bench.calls()
    [output] = [word for word in call if word.startswith("--output=")]
    [fields] = csv.reader([output.removeprefix("--output=")])
    assert fields == ["type=oci", "tar=false", f"dest={folder.path}"]


def test_publish_needs_no_platform(bench: Bench) -> None:
    """A builder outside the engine pushes by itself."""
    builder = outside(bench)
    bench.patch.setenv("METADATA", json.dumps({"containerimage.digest": ID}))
    assert publish(builder, bench.request()) == Digest.parse(ID)
    [call] = bench.calls()
    assert "--push" in call
    assert not [word for word in call if word.startswith("--platform")]


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


WILLING = """sh -c 'echo $$ >"$0"; exec sleep 600' "$1"; true"""
STUBBORN = f"trap '' INT; {WILLING}; sleep 600"
INTERRUPTED = """
import sys
from imgload.tools.skaffold.builders import run
try:
    run(["sh", "-c", sys.argv[1], "child", sys.argv[2]])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_run_passes_stdout_and_stderr_through(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(["sh", "-c", 'pwd; echo "$SAID" >&2'], tmp_path, {"SAID": "so"})
    assert capfd.readouterr() == (f"{tmp_path}\n", "so\n")


def test_run_and_read_also_shows_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_and_read(["sh", "-c", "echo one; echo two >&2"]) == "one\n"
    assert capfd.readouterr() == ("one\n", "two\n")


def test_read_shows_nothing_and_returns_nothing_after_a_failure(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert read(["echo", "one"]) == "one\n"
    assert read(["sh", "-c", "echo one; exit 3"]) == ""
    assert read(["/no/such/program"]) == ""
    assert capfd.readouterr() == ("", "")


def test_run_gives_the_child_no_stdin() -> None:
    run(["sh", "-c", "! read answer"])


@pytest.mark.parametrize(
    ("script", "result"), [("exit 7", "exit status 7"), ("kill -KILL $$", "signal SIGKILL")]
)
def test_run_reports_the_exit_status_or_signal(script: str, result: str) -> None:
    with pytest.raises(BuildFailed, match=f"sh -c failed with {result}"):
        run(["sh", "-c", script])


@pytest.mark.parametrize("program", ["no-such-program", "/"])
def test_run_names_a_program_that_cannot_run(program: str) -> None:
    with pytest.raises(UsageError) as caught:
        run([program, "build"])
    assert repr(program) in caught.value.message


@pytest.mark.parametrize(("script", "seconds"), [(WILLING, 1), (STUBBORN, 2)])
def test_an_interrupt_ends_the_childs_whole_process_group(
    tmp_path: Path, script: str, seconds: float
) -> None:
    """Also processes that ignore SIGINT: Skaffold kills its builder after two seconds."""
    pid_file = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, script, str(pid_file)])
    while not pid_file.exists() or not pid_file.read_text().strip():
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert time.monotonic() - start < seconds
    assert not is_running(int(pid_file.read_text()))


def test_an_interrupt_while_popen_runs_ends_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child exists before Popen returns."""
    started = subprocess.Popen
    children: list[subprocess.Popen[bytes]] = []

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(started(*args, **options))
        signal.raise_signal(signal.SIGINT)
        return children[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "600"], tmp_path)
    assert children[0].returncode == -signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_temporary_file_is_removed_after_an_exception() -> None:
    used: list[Path] = []

    def use() -> None:
        with temporary_file("id") as path:
            used.append(path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert not used[0].parent.exists()
    assert used[0].parent.name.startswith(RUN_FOLDER)  # which the next run removes
