"""The errors: their exit statuses, names for machines, and the tree that is drawn of them."""

import inspect
import pickle
import re
import traceback
from collections.abc import Callable

import pytest

import imgload
from imgload.core import errors
from imgload.core.errors import ImgloadError, error_json, reason
from imgload.engines.base import ExecResult
from imgload.loader.report import ImageResult, NodeResult
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.doctor.finding import Finding

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, ImgloadError)
} | {name: getattr(imgload, name) for name in ("LoadFailed", "RestartFailed", "PruneFailed")}
STATUS = {
    "UsageError": 2,
    "ReferenceInvalid": 2,
    "ImageNotFound": 3,
    "ImageAmbiguous": 3,
    "ClusterNotFound": 4,
    "ClusterAmbiguous": 4,
    "NodeNotFound": 4,
    "EngineUnreachable": 5,
    "EngineNotPermitted": 5,
    "EngineFailed": 5,
    "ArchiveInvalid": 6,
    "DigestMismatch": 6,
    "PlatformMissing": 6,
    "ImageIncomplete": 6,
    "NodeNotRunning": 1,
    "NodeUnusable": 1,
    "NodeFull": 1,
    "NodeStalled": 1,
    "ImportFailed": 1,
    "NotVerified": 1,
    "NotRemoved": 1,
    "LoadFailed": 1,
    "RestartFailed": 1,
}


@pytest.mark.parametrize(("name", "status"), STATUS.items())
def test_each_error_has_its_exit_status(name: str, status: int) -> None:
    """The table of the command line's documentation."""
    assert CLASSES[name].exit_status == status


def drawn() -> dict[str, tuple[str, int]]:
    """Return each error in the drawing with its parent and exit status there."""
    tree: dict[str, tuple[str, int]] = {}
    above: list[tuple[int, str, int]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r" {4}([│├└─ ]*)(\w+)(?: +(?:exit status )?(\d)\b.*)?", line)
        if not match or not match.group(2)[0].isupper():
            continue
        depth, name = len(match.group(1)), match.group(2)
        above = [entry for entry in above if entry[0] < depth]
        _, parent, inherited = above[-1] if above else (-1, "Exception", 1)
        status = int(match.group(3) or inherited)
        tree[name] = (parent, status)
        above.append((depth, name, status))
    return tree


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    """Every class, its parent and its exit status."""
    real = {name: (value.__mro__[1].__name__, value.exit_status) for name, value in CLASSES.items()}
    assert drawn() == real


@pytest.mark.parametrize("name", CLASSES)
def test_each_errors_kind_is_its_name_in_kebab_case(name: str) -> None:
    """Part of the JSON report; never changed by chance."""
    kind = CLASSES[name].kind.fget(CLASSES[name].__new__(CLASSES[name]))
    assert kind.replace("-", "") == name.lower()
    assert kind.count("-") == len(re.findall("[A-Z]", name)) - 1


def test_an_error_carries_its_message_and_hint() -> None:
    """For people as text, for machines as three fields."""
    error = errors.ImageNotFound("no app", hint="docker images")
    assert str(error) == error.message == "no app"
    assert error_json(error) == {
        "kind": "image-not-found",
        "message": "no app",
        "hint": "docker images",
    }
    assert errors.NodeFull("full").hint == ""


def test_the_hint_is_in_the_traceback_once() -> None:
    """Also after pickling, and of each node that failed."""
    error = errors.ImageNotFound("no app", hint="docker images")
    for shown in (error, pickle.loads(pickle.dumps(error))):
        lines = traceback.format_exception(shown)
        assert lines == ["imgload.core.errors.ImageNotFound: no app\n", "try: docker images\n"]
    full = errors.NodeFull("no space", hint="imgload prune")
    image = ImageResult(
        "app", None, "docker", Platform("linux", "amd64"), (NodeResult("a", None, error=full),) * 2
    )
    text = "".join(traceback.format_exception(imgload.LoadFailed(imgload.Report((image,)))))
    assert text.count("try: imgload prune") == 1


@pytest.mark.parametrize(
    "name", sorted(CLASSES.keys() - {"LoadFailed", "RestartFailed", "PruneFailed"})
)
def test_an_error_can_be_pickled_with_its_data(name: str) -> None:
    """For process pools."""
    error = CLASSES[name]("m", hint="h", node="n", endpoint="unix:///e", image="app:dev")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == ("m", vars(error))
    assert (copy.node, copy.endpoint, copy.image) == ("n", "unix:///e", "app:dev")


def test_a_failed_load_can_be_pickled_with_its_report() -> None:
    result = NodeResult("n", "full", error=errors.NodeFull("no space", node="n"))
    image = ImageResult("app", None, "docker", Platform("linux", "amd64"), (result,))
    copy = pickle.loads(pickle.dumps(imgload.LoadFailed(imgload.Report((image,)))))
    assert copy.report.to_json() == imgload.Report((image,)).to_json()
    assert copy.report.images[0].nodes[0].error.node == "n"


@pytest.mark.parametrize("name", CLASSES)
def test_each_error_has_a_docstring(name: str) -> None:
    """Its docstring is the reference."""
    assert (CLASSES[name].__doc__ or "").strip()


WARNINGS = [
    'time="2026-11-29T03:00:00Z" level=warning msg="DEPRECATION: The support for cgroup v1"',
    "time=2026-11-29T03:00:00Z level=WARN msg=old",
    "WARN[0000] runtime connect using default endpoints: [unix:///run/containerd/containerd.sock]",
    "W1129 03:00:00.000000    1234 warnings.go:70] v1 ComponentStatus is deprecated",
    "Warning: Permanently added 'host' (ED25519) to the list of known hosts.",
    "** WARNING: connection is not using a post-quantum key exchange algorithm.",
    "DEPRECATED: The legacy builder is deprecated",
    '{"level":"warning","msg":"\\"level\\":\\"fatal\\"","time":"2026-11-29T03:00:00Z"}',
    '{"time":"2026-11-29T03:00:00Z", "level":"WARN", "msg":"old"}',
]


@pytest.mark.parametrize("warning", WARNINGS)
def test_a_warning_is_never_the_reason_of_a_failure(warning: str) -> None:
    """Before it, after it, or alone."""
    assert reason(f"{warning}\nctr: it is corrupt\n{warning}") == "ctr: it is corrupt"
    assert not reason(warning)
    assert ExecResult(1, b"on stdout", warning.encode()).message == "on stdout"


def test_the_message_of_a_log_line_is_the_reason() -> None:
    """As crictl prints it."""
    line = 'time="2026-11-23T08:19:52Z" level=fatal msg="no such image \\"a\\" present"'
    assert reason(line) == 'no such image "a" present'
    assert (
        reason('{"level":"fatal","msg":"it is \\"corrupt\\"","error":"a"}') == 'it is "corrupt": a'
    )


@pytest.mark.parametrize("line", ["{", "{}", '{"a": 1}', "{" * 100_000, '{"level": 5, "msg": []}'])
def test_reason_keeps_other_lines_in_braces(line: str) -> None:
    """It is no log."""
    assert reason(line) == line


FAKE = "\n✓ kind-worker: loaded"


@pytest.mark.parametrize(
    "said",
    [
        lambda: str(raised(Digest.parse, f"sha256:{FAKE}")),
        lambda: str(raised(Digest.parse, f"{FAKE}:00")),
        lambda: ImgloadError("it failed", hint=f"rm 'a{FAKE}'").hint,
        lambda: Finding("image", "problem", "it failed", f"rm 'a{FAKE}'").hint,
    ],
)
def test_untrusted_text_starts_no_line(said: Callable[[], str]) -> None:
    """A line of its own could be taken for imgload's."""
    assert "kind-worker" in said()
    assert "\n" not in said()


def raised(call: Callable[[str], object], text: str) -> ImgloadError:
    with pytest.raises(ImgloadError) as caught:
        call(text)
    return caught.value
