"""The errors: their exit statuses, names for machines, and the tree that is drawn of them."""

import inspect
import re

import pytest

from imgload import errors
from imgload.errors import ImgloadError
from imgload.report import error_json

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, ImgloadError)
}
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
    "NotProven": 1,
    "NotRemoved": 1,
    "LoadFailed": 1,
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
    kind = CLASSES[name].kind.fget(CLASSES[name].__new__(CLASSES[name]))  # type: ignore[attr-defined]
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


@pytest.mark.parametrize("name", CLASSES)
def test_each_error_says_what_it_means(name: str) -> None:
    """Its docstring is the reference."""
    assert (CLASSES[name].__doc__ or "").strip()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('time="t" level=warning msg="DEPRECATION: cgroup v1"\nctr: not found\n', "ctr: not found"),
        ("WARN[0000] Using cgroups-v1 which is deprecated\nError: no space\n", "Error: no space"),
        ('time="t" level=warning msg="only this"\n', ""),
        ('time="t" level=fatal msg="no \\"x\\"" error="refused"\n', 'no "x": refused'),
        ("Error: one\nand two\n", "Error: one\nand two"),
        ("", ""),
    ],
)
def test_a_reason_is_no_warning(said: str, expected: str) -> None:
    """As containerd 2.2, Podman 5 and crictl print warnings first."""
    assert errors.reason(said) == expected
