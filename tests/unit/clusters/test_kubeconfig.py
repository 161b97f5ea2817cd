"""The current context, in files of any origin."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.kubeconfig import current_context, invalid_files
from tests.unit.bounds import within


def context_of(folder: Path, *texts: str | bytes) -> str | None:
    """Return the context of several files, in that order."""
    paths = []
    for number, text in enumerate(texts):
        path = folder / f"config-{number}"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        paths.append(str(path))
    return current_context({"KUBECONFIG": os.pathsep.join(paths)})


KIND = """\
apiVersion: v1
kind: Config
clusters:
- cluster: {server: "https://127.0.0.1:34567"}
  name: kind-dev
contexts:
- context: {cluster: kind-dev, user: kind-dev}
  name: kind-dev
current-context: kind-dev
preferences: {}
users: []
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KIND, "kind-dev"),
        (KIND.replace("\n", "\r\n"), "kind-dev"),
        ("\ufeff" + KIND, "kind-dev"),
        ('{"current-context": "kind-json"}', "kind-json"),
        ("current-context: 'kind-quoted'", "kind-quoted"),
        ("current-context: arn:aws:eks:eu-1:1:cluster/x", "arn:aws:eks:eu-1:1:cluster/x"),
        ("current-context: user@host.example", "user@host.example"),
        ("current-context: kind-é", "kind-é"),
        ("current-context: ''", None),
        ("current-context:", None),
        ("contexts: []", None),
        ("", None),
    ],
)
def test_current_context_reads_any_style(tmp_path: Path, text: str, expected: str | None) -> None:
    """As kubectl, an editor or another tool wrote it."""
    assert context_of(tmp_path, text) == expected


def test_the_first_file_that_has_a_context_wins(tmp_path: Path) -> None:
    """`KUBECONFIG` is a list of files that kubectl merges (its documentation)."""
    first, second = "current-context: kind-a", "current-context: kind-b"
    assert context_of(tmp_path, first, second) == "kind-a"
    assert context_of(tmp_path, second, first) == "kind-b"
    assert context_of(tmp_path, "contexts: []", "current-context: ''", second) == "kind-b"


@pytest.mark.parametrize("broken", ["{", "a: b: c", b"\xff\xfe\x00", "- a", "x: 1\n\ty: 2"])
def test_a_broken_file_does_not_hide_the_next(tmp_path: Path, broken: str | bytes) -> None:
    """kubectl reports it."""
    assert context_of(tmp_path, broken, KIND) == "kind-dev"
    assert context_of(tmp_path, broken) is None


@pytest.mark.parametrize("what", ["absent", "folder", "folder/absent", "plain/below"])
def test_entries_that_are_not_files_are_skipped(tmp_path: Path, what: str) -> None:
    """As kubectl does."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    (tmp_path / "there").write_text(KIND)
    listed = os.pathsep.join([str(tmp_path / what), "", str(tmp_path / "there")])
    assert current_context({"KUBECONFIG": listed}) == "kind-dev"
    assert current_context({"KUBECONFIG": str(tmp_path / what)}) is None


@pytest.mark.parametrize("environ", [{}, {"KUBECONFIG": ""}])
def test_without_the_variable_the_home_folders_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """The same with an empty variable."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert current_context(environ) is None
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(KIND)
    assert current_context(environ) == "kind-dev"


def test_the_default_is_the_processs_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(KIND)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert current_context() == "kind-dev"


@pytest.mark.parametrize(
    "value", ["[kind-a]", "{name: kind-a}", "1", "1.5", "true", "null", "~", "[]", "2024-01-01"]
)
def test_a_context_that_is_not_a_string_is_ignored(tmp_path: Path, value: str) -> None:
    """kubectl refuses it, too."""
    assert context_of(tmp_path, f"current-context: {value}", KIND) == "kind-dev"


@pytest.mark.parametrize(
    "text", ["[current-context]", "current-context", "3", "--- a\n--- b", "&a"]
)
def test_a_document_that_is_not_a_mapping_has_no_context(tmp_path: Path, text: str) -> None:
    """It is valid YAML, and no kubeconfig."""
    assert context_of(tmp_path, text) is None


@pytest.mark.parametrize(
    "value",
    [
        "2001-02-30",
        "2001-13-45 10:00:00",
        "2001-01-01T00:00:00+99:99",
        "!!int abc",
        "!!float abc",
        "!!bool maybe",
        "9" * 5000,
        "0x_",
        "0b_",
        "=",
    ],
)
def test_an_invalid_value_elsewhere_is_ignored(tmp_path: Path, value: str) -> None:
    """Such as an extension's date."""
    text = f"{KIND}extensions:\n- extension: {value}\n"
    assert context_of(tmp_path, text) in {"kind-dev", None}


@pytest.mark.parametrize(
    "text",
    [
        "current-context: !!python/object/apply:os.system ['touch pwned']",
        "!!python/object/new:os.system ['touch pwned']",
        "current-context: !!python/name:os.system",
    ],
)
def test_tags_in_the_file_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Anybody may have written a kubeconfig."""
    monkeypatch.chdir(tmp_path)
    assert context_of(tmp_path, text) is None
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("text", ["[" * 900, "[" * 900 + "]" * 900, "{a: " * 900, "- " * 900])
def test_a_deeply_nested_document_is_skipped(tmp_path: Path, text: str) -> None:
    """Whether it is closed or not."""
    assert context_of(tmp_path, text, KIND) == "kind-dev"


@pytest.mark.parametrize("opened", ["[", "- "])
def test_an_endlessly_nested_document_does_not_crash(tmp_path: Path, opened: str) -> None:
    """In a subprocess: recursion in the library's C code would kill the process."""
    (tmp_path / "deep").write_text(opened * 50_000)
    (tmp_path / "config").write_text(KIND)
    program = "from imgload.clusters.kubeconfig import current_context as c; print(c())"
    listed = os.pathsep.join(str(tmp_path / name) for name in ("deep", "config"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KUBECONFIG": listed},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert (done.returncode, done.stdout) == (0, "kind-dev\n")


def test_aliases_are_not_expanded(tmp_path: Path) -> None:
    """Nine levels of nine would be a billion elements."""
    levels = ["a0: &a0 [x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with within(2):
        assert context_of(tmp_path, "\n".join([*levels, "current-context: kind-a"])) == "kind-a"


def test_a_huge_file_is_read_within_a_second(tmp_path: Path) -> None:
    """Two hundred clusters with their certificates; a load waits for it."""
    entry = {"name": "x", "cluster": {"certificate-authority-data": "QUJD" * 500}}
    text = yaml.dump({"clusters": [entry] * 200}, Dumper=NoAliases) + "current-context: kind-a\n"
    assert len(text) > 400_000
    with within(1):
        assert context_of(tmp_path, text) == "kind-a"


class NoAliases(yaml.CSafeDumper):
    """Writes everything out."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(VALUES, st.dictionaries(st.text(max_size=6), VALUES, max_size=3))
def test_current_context_reads_any_document(
    tmp_path_factory: pytest.TempPathFactory, context: object, rest: dict[str, object]
) -> None:
    """A string is the context, whatever surrounds it; any other value is not."""
    text = yaml.safe_dump({**rest, "current-context": context}, allow_unicode=True)
    expected = context if isinstance(context, str) and context else None
    assert context_of(tmp_path_factory.getbasetemp(), text) == expected


@given(st.binary(max_size=60) | st.text(max_size=60) | st.text("-:[]{}&*!%@`'\"#|> \nab0x_.=~?,"))
def test_any_bytes_give_a_name_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes | str
) -> None:
    """Without an exception: a load with --cluster does not need the file."""
    folder = tmp_path_factory.getbasetemp()
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    found = context_of(folder, b"current-context: " + raw)
    assert found is None or (isinstance(found, str) and found)


def test_a_file_that_cannot_be_used_has_a_fitting_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readable again, as k3s's file of root needs to be, or correct; others are no problem."""
    good, absent, bad = tmp_path / "good", tmp_path / "absent", tmp_path / "bad"
    good.write_text("current-context: kind-a")
    bad.write_text("a: [")
    paths = [str(path) for path in (good, absent, bad, tmp_path)]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(paths))
    broken, folder = invalid_files()
    assert broken[0].startswith(f"the kubeconfig {bad} cannot be used: it is not valid YAML: ")
    assert broken[1] == "correct it; or unset KUBECONFIG"
    assert folder[0] == f"the kubeconfig {tmp_path} cannot be used: Is a directory"
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    config = tmp_path / ".kube" / "config"
    config.touch()
    assert [*invalid_files()] == []
    denied = PermissionError(13, "Permission denied")
    monkeypatch.setattr(Path, "read_bytes", lambda _: (_ for _ in ()).throw(denied))
    assert [*invalid_files()] == [
        (
            f"the kubeconfig {config} cannot be used: Permission denied",
            f'make it readable: sudo chown "$USER" {config}',
        )
    ]
