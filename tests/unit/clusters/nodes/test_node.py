"""A node, whose commands run in this machine's sh with fake ctr and crictl."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgload.clusters.nodes.base import PreviousNames
from imgload.clusters.nodes.containerd import Containerd, ContentStore, CriAnswer
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import SurveyQuery
from imgload.core.errors import ImportFailed, NodeFull, NodeNotRunning, NodeUnusable
from imgload.engines.base import Container
from imgload.oci.digest import Digest
from imgload.oci.document import LAYER, Descriptor
from imgload.oci.platform import Platform
from tests.unit.archives import Image
from tests.unit.fakes import RUNNING, LocalEngine
from tests.unit.recordings import MYAPP, recorded
from tests.unit.samples import sourced

AMD = Platform("linux", "amd64")
NOTHING = SurveyQuery((), ())
CONFIG_ID = Digest("sha256", "a66a7ae1c90f95460e4a63cab29fb411e9c4f98ef72e45059e0e573c0f340ff4")
CTR = """
case "$*" in
  version) cat "{0}/version" ;;
  *"images ls"*) cat "{0}/images" ;;
  *"content ls") cat "{0}/content" ;;
  *"--snapshotter overlayfs ls") cat "{0}/snapshots" ;;
  *"--snapshotter native ls") echo KEY PARENT KIND; echo asked native >>"{0}/log" ;;
  *"images import"*) cat >"{0}/imported"; echo "$*" >>"{0}/log" ;;
  *) exit 3 ;;
esac
"""
CRICTL = '[ "$6" = docker.io/library/myapp:v1 ] && cat "{0}/inspect"'


def node_on(folder: Path, version: str = "2.1", **programs: str) -> Node:
    for what in ("version", "images", "content", "snapshots", "config", "inspect"):
        with_inspect = what != "inspect" or version != "1.6"
        (folder / what).write_bytes(recorded(version, what) if with_inspect else b"")
    scripts = {"ctr": CTR, "crictl": CRICTL, "containerd": 'cat "{0}/config"', **programs}
    engine = LocalEngine(folder, {n: s.replace("{0}", str(folder)) for n, s in scripts.items()})
    return Node("kind-control-plane", engine, RUNNING)


@pytest.mark.parametrize("version", ["1.7", "2.1"])
def test_survey_reads_recorded_output(tmp_path: Path, version: str) -> None:
    """Through a real shell: records, snapshots, and CRI's answers for both names."""
    absent = "docker.io/library/absent:v9"
    survey = node_on(tmp_path, version).survey(SurveyQuery((MYAPP, absent), (CONFIG_ID,)))
    assert survey.has(MYAPP, CONFIG_ID)
    assert len(survey.snapshots) == 3
    assert survey.cri == {MYAPP: CriAnswer(CONFIG_ID), absent: CriAnswer(None)}
    assert survey.traits.version[0] == int(version[0])


def test_survey_reads_the_configured_snapshotter(tmp_path: Path) -> None:
    """overlayfs is only a guess; the configuration decides (kind #2543)."""
    node = node_on(tmp_path)
    config = (tmp_path / "config").read_text().replace("'overlayfs'", "'native'")
    (tmp_path / "config").write_text(config)
    survey = node.survey(SurveyQuery((), ()))
    assert survey.traits.snapshotter == "native"
    assert survey.snapshots == frozenset()
    assert (tmp_path / "log").read_text() == "asked native\n"


@pytest.mark.parametrize(
    ("state", "verb"), [("exited", "start"), ("paused", "unpause"), ("created", "start")]
)
def test_survey_refuses_a_node_that_does_not_run(tmp_path: Path, state: str, verb: str) -> None:
    """The hint is the command that starts it."""
    stopped = Container("c1", "kind-worker", state, {})
    with pytest.raises(NodeNotRunning) as caught:
        Node("kind-worker", LocalEngine(tmp_path), stopped).survey(SurveyQuery((), ()))
    assert caught.value.hint == f"docker {verb} kind-worker"
    assert state in caught.value.message


def test_a_node_whose_containerd_is_dead_is_unusable(tmp_path: Path) -> None:
    """`ctr version` fails."""
    with pytest.raises(NodeUnusable) as caught:
        node_on(tmp_path, ctr="exit 1").survey(SurveyQuery((), ()))
    assert "ctr version" in caught.value.message


def test_a_killed_shell_is_reported_with_its_last_output(tmp_path: Path) -> None:
    """Some outputs are missing."""
    dying = 'case "$*" in *"content ls") echo "out of memory" >&2; kill -9 $PPID; esac'
    node = node_on(tmp_path, ctr=f"{dying}\n{CTR}")
    with pytest.raises(NodeUnusable, match="out of memory"):
        node.survey(SurveyQuery((MYAPP,), ()))


@pytest.mark.parametrize("version", ["1.6", "2.1"])
def test_import_layout_passes_the_whole_stream(tmp_path: Path, version: str) -> None:
    """With the options of that containerd: 1.6 has no --local."""
    node = node_on(tmp_path, version)
    node.survey(SurveyQuery((), ()))
    pieces = [bytes([i]) * 70_000 for i in range(50)]
    node.import_layout(iter(pieces), AMD, NOTHING)
    assert (tmp_path / "imported").read_bytes() == b"".join(pieces)
    log = (tmp_path / "log").read_text()
    assert ("--local" in log) is (version == "2.1")
    assert "--platform=linux/amd64 -\n" in log


def test_import_layout_labels_the_image_in_the_same_exec(tmp_path: Path) -> None:
    """So that prune knows it; the survey is read from the same output."""
    mark = f'*"content label {CONFIG_ID}"*) echo "$*" >>"{{0}}/log" ;;'
    node = node_on(tmp_path, ctr=CTR.replace("*) exit 3 ;;", f"{mark}\n  *) exit 3 ;;"))
    node.survey(SurveyQuery((), ()))
    question = SurveyQuery((MYAPP,), (), loaded=((MYAPP, CONFIG_ID),))
    survey = node.import_layout(iter([b"x"]), AMD, question)
    assert survey.has(MYAPP, CONFIG_ID)
    assert f"imgload.loaded/{MYAPP}=" in (tmp_path / "log").read_text()


IMPORT = 'case "$*" in *import*) {};; version) cat "{{0}}/version";; *ls) echo KEY;; esac'


def test_a_failed_import_is_reported_with_its_last_line(tmp_path: Path) -> None:
    """And its exit status; kind shows neither (#921)."""
    script = IMPORT.format('echo "ctr: unrecognized image format" >&2; exit 5')
    node = node_on(tmp_path, ctr=script)
    node.survey(SurveyQuery((), ()))
    with pytest.raises(ImportFailed) as caught:
        node.import_layout(iter([bytes(1 << 20)] * 20), AMD, NOTHING)
    assert "exit status 5: ctr: unrecognized image format" in caught.value.message


LOGS = {
    "a file, as k3s": ("logs/containerd.log", "exit 1", "tail"),
    "the journal": ("", "echo started", "journalctl"),
    "an empty journal": ("", "exit 0", ""),
}


@pytest.mark.parametrize(("file", "journalctl", "program"), LOGS.values(), ids=LOGS)
def test_the_log_command_is_one_that_prints_something(
    tmp_path: Path, file: str, journalctl: str, program: str
) -> None:
    node = node_on(tmp_path, journalctl=journalctl, readlink="exit 1")
    node.runtime = Containerd(root=str(tmp_path / "logs"))
    if file:
        (tmp_path / "logs").mkdir()
        (tmp_path / file).touch()
    words = node.log_command.split()
    assert words[3:4] == ([program] if program else [])


def test_a_full_disk_is_node_full(tmp_path: Path) -> None:
    """kind #2108."""
    script = IMPORT.format('echo "write /var/x: no space left on device" >&2; exit 1')
    node = node_on(tmp_path, ctr=script)
    node.survey(SurveyQuery((), ()))
    with pytest.raises(NodeFull, match="no space left on device"):
        node.import_layout(iter([b"x"]), AMD, NOTHING)


def test_a_failed_import_is_reported_without_the_shells_last_line(tmp_path: Path) -> None:
    """On a node without crictl, which runs after the import."""
    node = node_on(tmp_path, ctr=IMPORT.format("echo it is corrupt >&2; exit 1"))
    node.survey(NOTHING)
    (tmp_path / "crictl").unlink()
    with pytest.raises(ImportFailed, match="exit status 1: it is corrupt"):
        node.import_layout(iter([b"x"]), AMD, SurveyQuery((MYAPP,), ()))


def test_an_import_may_leave_the_end_of_its_input_unread(tmp_path: Path) -> None:
    """ctr stops within the tar's end marker."""
    node = node_on(tmp_path, ctr=IMPORT.format("head -c 1000 >/dev/null"))
    node.survey(SurveyQuery((), ()))
    pieces = iter([bytes(1000), bytes(24)])
    node.import_layout(pieces, AMD, NOTHING)
    assert next(pieces, None) is None


def test_an_error_of_the_source_ends_the_import(tmp_path: Path) -> None:
    """It is raised unchanged, not as the node's."""

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    node = node_on(tmp_path)
    node.survey(SurveyQuery((), ()))
    with pytest.raises(ZeroDivisionError):
        node.import_layout(broken(), AMD, NOTHING)


def test_import_layout_needs_a_survey(tmp_path: Path) -> None:
    """The node's version decides on the command."""
    with pytest.raises(NodeUnusable, match="not surveyed"):
        node_on(tmp_path).import_layout(iter([]), AMD, NOTHING)


def test_run_reports_a_failure_with_its_output(tmp_path: Path) -> None:
    """Such as a tag that ctr refuses."""
    with pytest.raises(ImportFailed, match="no such name"):
        node_on(tmp_path).run(["sh", "-c", "echo no such name >&2; exit 1"])
    assert node_on(tmp_path).run(["echo", "fine"]) == b"fine\n"


def test_expected_returns_the_survey_after_the_last_import(tmp_path: Path) -> None:
    """For any name, but not for an image that the node may have."""
    node = node_on(tmp_path)
    asked = SurveyQuery((MYAPP,), (Digest.of(b"new"),))
    node.survey(asked)
    assert node.cached_survey(asked) is None
    survey = node.import_layout(iter([b"x"]), AMD, asked)
    expected = node.cached_survey(SurveyQuery((MYAPP,), (Digest.of(b"newer"),)))
    assert expected == survey
    assert not expected.fresh
    assert node.cached_survey(SurveyQuery((MYAPP, "other"), (Digest.of(b"newer"),))) == survey
    assert node.cached_survey(SurveyQuery((MYAPP,), (CONFIG_ID,))) is None


def test_expected_is_none_after_a_failed_import(tmp_path: Path) -> None:
    """It may have left anything."""
    node = node_on(tmp_path)
    node.survey(NOTHING)
    node.import_layout(iter([b"x"]), AMD, NOTHING)
    (tmp_path / "ctr").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ImportFailed):
        node.import_layout(iter([b"x"]), AMD, NOTHING)
    assert node.cached_survey(NOTHING) is None


def logging_node(folder: Path) -> Node:
    """Return a surveyed node that logs each change of a name."""
    changes = '*"images tag"*|*"images label"*|*"images rm"*) echo "$*" >>"{0}/log" ;;'
    node = node_on(folder, ctr=CTR.replace("*) exit 3 ;;", f"{changes}\n  *) exit 3 ;;"))
    node.survey(NOTHING)
    return node


@pytest.mark.parametrize(("existing", "change"), [("other", "tag --force"), (MYAPP, "label")])
def test_tag_adds_a_name_or_has_cri_read_it_again(
    tmp_path: Path, existing: str, change: str
) -> None:
    """CRI reads a record again when its label changes (containerd #9039)."""
    node, before = logging_node(tmp_path), PreviousNames()
    image = sourced(MYAPP, CONFIG_ID)
    assert node.tag(image, existing, CONFIG_ID, before).has(MYAPP, CONFIG_ID)
    assert MYAPP in (before.records or {})
    assert f"images {change}" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("damage", [b"", b" "])
def test_only_manifests_with_their_digest_describe_layers(tmp_path: Path, damage: bytes) -> None:
    """ctr prints rounded sizes; another manifest of the node has the exact ones."""
    image = Image(gzipped=True)
    manifest, blob = Digest.of(image.manifest), Digest.of(image.blobs[0])
    base = Digest.of(image.layers[0])
    (tmp_path / "manifest").write_bytes(image.manifest + damage)
    node = node_on(tmp_path, ctr=f'[ "$5" = {manifest} ] && cat "{{0}}/manifest"')
    content = ContentStore(
        frozenset([manifest, blob]), layers={manifest: (blob,)}, diff_ids={blob: base}
    )
    layer = Descriptor(f"{LAYER}+gzip", blob, len(image.blobs[0]))
    assert node.stored_layers(content, {base}) == ({} if damage else {base: layer})
