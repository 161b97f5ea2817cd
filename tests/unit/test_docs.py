"""Check the documentation: commands parse, and named tests, files, errors and options exist.

`scripts/docs` builds the site and checks links, references and docstrings.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import inspect
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import yaml

import imgload
from docs.generated import PAGES as GENERATED
from docs.generated import command_line, error_tables, library
from docs.releases import list_versions
from imgload.cli.app import cli
from imgload.core import trace
from imgload.core.errors import ImgloadError
from tests.engine.test_costs import COSTS
from tests.engine.test_pages import Session
from tests.snippets import PAGES, snippets
from tests.unit.test_peers_page import defined

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROOTS = ("src", "tests", "docs", "release")
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
}
_BLOCK = re.compile(r"^ *```(console|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SEPARATORS = set("|&;()<>\n")


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of imgload in the console and shell blocks of a page."""
    for kind, block in _BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if kind == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in lines:
            yield from _calls(line)


def _calls(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    call: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= _SEPARATORS:
            if "imgload" in call:
                yield call[call.index("imgload") + 1 :]
            call = []
        else:
            call.append(word)


CALLS = [(page, call) for page, text in TEXTS.items() for call in commands_in(text)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("imgload load app:dev -c kind # why", [["load", "app:dev", "-c", "kind"]]),
        ("podman save app | imgload load --from - -q", [["load", "--from", "-", "-q"]]),
        ("X=1 imgload load a > b.json", [["load", "a"]]),
        (
            '    imgload load app:dev --cluster "$c" || exit',
            [["load", "app:dev", "--cluster", "$c"]],
        ),
        ("imgload load a; imgload verify a", [["load", "a"], ["verify", "a"]]),
        ("docker build -t app .", []),
    ],
)
def test_calls_are_found_in_shell_lines(line: str, expected: list[list[str]]) -> None:
    assert list(_calls(line)) == expected
    assert list(commands_in(f"```console\n$ {line}\noutput\n```\n")) == expected


@pytest.mark.parametrize(("page", "call"), CALLS, ids=lambda value: str(value)[:60])
def test_every_shown_call_parses(page: str, call: list[str]) -> None:
    context = click.Context(cli, info_name="imgload", **cli.context_settings)
    command: click.Command | None = cli
    while isinstance(command, click.Group) and call and not call[0].startswith("-"):
        name, *call = call
        command = command.get_command(context, name)
    assert command is not None, page
    with contextlib.suppress(click.exceptions.Exit):  # from --help and --version
        command.make_context(command.name, list(call), parent=context)


@pytest.fixture(autouse=True)
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing ``--verbose`` starts the log, which would go on in later tests."""
    monkeypatch.setattr(trace, "_write", None)


_COMMENT = re.compile(r"before:\s.+|not executed: .+|executed by (test_\w+)", re.DOTALL)
_SNIPPET = re.compile(r"^ *```(?:console|sh|python)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_snippet_is_executed_or_has_the_reason_why_not(page: Path) -> None:
    """`test_pages.py` executes each snippet that has no reason."""
    found = snippets(page)
    assert len(found) == len(_SNIPPET.findall(page.read_text()))
    comments = [_COMMENT.fullmatch(snippet.comment) for snippet in found if snippet.comment]
    assert all(comments), [snippet.comment for snippet in found]
    tests = {comment[1] for comment in comments if comment and comment[1]}
    assert tests <= defined("**/test_*.py")


_ONE, _TWO = "2d1941dbe132", "c4531305dbe4"


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("loaded, 57 MiB in 2.6 s", "loaded, 4 KiB in 0.3 s", True),
        ("loaded, 57 MiB in 2.6 s", "loaded, 4 KiB in 0.3 s; verified", False),
        (f"{_ONE}\nnew", f"{_TWO}\nnew", True),
        (f"sha256:{_ONE}{'0' * 52}\n{_ONE}", f"sha256:{_TWO}{'1' * 52}\n{_TWO}", True),
        (f"{_ONE} replaced {_ONE}", f"{_ONE} replaced {_TWO}", False),
        ("one\n…\nfour", "one\ntwo\nthree\nfour", True),
        ("one …\nfour", "one\ntwo\nfour", False),
        ("containerd 2.1, 3 nodes", "containerd 2.2, 3 nodes", True),
        ("containerd 2.1, 3 nodes", "containerd 2.1, 2 nodes", False),
    ],
)
def test_outputs_may_differ_from_pages_in_sizes_times_versions_and_new_ids(
    expected: str, output: str, *, same: bool
) -> None:
    assert Session().shows(expected, output) == same


_ANY_BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CHECKS: dict[str, Callable[[str], object]] = {
    "python": ast.parse,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "json": json.loads,
    "toml": tomllib.loads,
    "sh": lambda text: subprocess.run(["sh", "-n"], input=text, text=True, check=True),
    "console": lambda _: None,  # its calls are parsed by the test above
    "ini": configparser.ConfigParser(strict=False).read_string,
    "text": lambda _: None,  # not code
}
"""Raises an exception if a block is not valid in its language."""
CODE = [
    (page, *block)
    for page, text in TEXTS.items()
    for block in _ANY_BLOCK.findall(text)
    if not block[0].startswith("{")  # a directive of Sphinx
]


@pytest.mark.parametrize(("page", "language", "code"), CODE, ids=lambda value: str(value)[:30])
def test_every_block_of_code_is_valid_or_marked_as_text(
    page: str, language: str, code: str
) -> None:
    assert language in _CHECKS, page
    _CHECKS[language](code)


INLINE = [
    (page, call)
    for page, text in TEXTS.items()
    for call in re.findall(r"`(imgload [a-z][^`…]*)`", _ANY_BLOCK.sub("", text))
]


@pytest.mark.parametrize(("page", "call"), INLINE, ids=lambda value: str(value)[:60])
def test_every_call_in_a_sentence_or_table_parses(page: str, call: str) -> None:
    """A sentence may name a command or an option without its arguments."""
    incomplete = (click.exceptions.NoArgsIsHelpError, click.BadOptionUsage, click.MissingParameter)
    for words in _calls(call):
        with contextlib.suppress(*incomplete):
            test_every_shown_call_parses(page, words)


def test_the_main_pages_show_calls() -> None:
    assert {"README.md", "docs/start.md", "docs/images.md"} <= {page for page, _ in CALLS}


def test_every_command_and_option_is_in_the_reference() -> None:
    page = command_line()
    context = click.Context(cli, info_name="imgload")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command
        section = page.partition(f"\n## imgload {name}\n")[2].partition("\n## ")[0]
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        assert [o.name for o in options if o.opts[0] not in section] == []


def test_the_reference_keeps_columns_and_links_to_the_commands() -> None:
    """The exit status in the first line is indented more than the last one, which has 3 digits."""
    page = command_line()
    assert "\n  0  every image is verified" in page
    assert "\n130  interrupted" in page
    assert "| [`imgload registry push`](#imgload-registry-push) | Push images" in page


def test_every_public_name_is_in_the_reference() -> None:
    names = [name for name in imgload.__all__ if not name.startswith("__")]
    assert [name for name in names if f":: imgload.{name}\n" not in library()] == []
    values = {name: getattr(imgload, name) for name in names if name != "ImgloadError"}
    errors = [n for n, v in values.items() if inspect.isclass(v) and issubclass(v, ImgloadError)]
    assert [name for name in errors if f"`imgload.{name}`" not in error_tables()] == []


def test_each_generated_part_has_its_page() -> None:
    assert [page for page in GENERATED if not (DOCS / f"{page}.md").is_file()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_named_tests_exist(page: str) -> None:
    assert set(re.findall(r"`(test_\w+)`", TEXTS[page])) <= defined("**/test_*.py")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_the_site_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page])
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    ("row", "action"),
    [("present", "present"), ("one more name", "tagged"), ("full", "full"), ("rebuild", "delta")],
)
def test_the_costs_in_how_it_works_are_those_of_the_engine_test(row: str, action: str) -> None:
    cells = rf"^\| {row}[^|]*\| (\d+) \| (\d+) \| (\d+) \|$"
    match = re.search(cells, TEXTS["docs/how-it-works.md"], re.MULTILINE)
    cost = COSTS["docker", "lab-d21"][action]
    assert match
    assert [int(n) for n in match.groups()] == [cost.execs, cost.requests, cost.pushed]


def source_strings() -> list[str]:
    trees = (ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in nodes if isinstance(node.value, str)]


def is_in(words: str, texts: list[str]) -> bool:
    """Return whether a text contains the words, or the end of one text and the start of another."""
    starts = [words[:i] for i in range(1, len(words)) if words[i - 1] == " "]
    return any(words in text for text in texts) or any(
        any(text.endswith(start) for text in texts)
        and any(text.startswith(words[len(start) :]) for text in texts)
        for start in starts
    )


def test_headings_of_troubleshooting_quote_texts_of_the_sources() -> None:
    page = TEXTS["docs/troubleshooting.md"].partition("\n## The engine\n")[2]
    headings = re.findall(r"^### (.*)", page, re.MULTILINE)
    quoted = [text for heading in headings for text in re.findall(r"`([^`]+)`", heading)]
    pieces = {
        part.strip(" :,") for text in quoted for part in text.removeprefix("note: ").split("…")
    }
    assert len(pieces) > 40
    texts = source_strings()
    assert [p for p in sorted(pieces) if not is_in(p, texts)] == []


def test_troubleshooting_has_every_kind_of_error() -> None:
    kinds = set(re.findall(r"^\| `([a-z-]+)` \|", error_tables(), re.MULTILINE))
    bases = {"image-error", "cluster-error", "engine-error", "node-error"}
    page = TEXTS["docs/troubleshooting.md"]
    listed = set(re.findall(r"^### .*\n\n`([a-z-]+)`", page, re.MULTILINE))
    assert kinds - bases - {"load-failed", "prune-failed"} == listed


CONTRIBUTING = TEXTS["CONTRIBUTING.md"]
PACKAGE = ROOT / "src/imgload"
FOLDERS = {f"{p.parent.relative_to(PACKAGE)}/" for p in PACKAGE.glob("*/**/*.py")} - {"tools/"}


def test_the_map_of_tests_names_every_folder_and_every_engine_test() -> None:
    rows = dict(re.findall(r"^\| (\S+) \| (.*) \|$", CONTRIBUTING, re.MULTILINE))
    tests = {name for row in rows.values() for name in re.findall(r"`(test_\w+\.py)`", row)}
    assert tests == {path.name for path in (ROOT / "tests/engine").glob("test_*.py")}
    assert {name.strip("`") for name in rows if name.endswith("/`")} == FOLDERS


def test_unit_tests_mirror_the_folders_of_the_sources() -> None:
    tests = ROOT / "tests/unit"
    folders = {f"{path.parent.relative_to(tests)}/" for path in tests.glob("*/**/test_*.py")}
    assert folders <= FOLDERS


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_named_files_and_classes_exist(page: str) -> None:
    """In tables, files are named without the folder of their row."""
    files = {
        path.relative_to(ROOT).as_posix() for top in ROOTS for path in (ROOT / top).rglob("*.*")
    }
    words = set(re.findall(r"`([^`\s]+)`", TEXTS[page]))
    paths = {word for word in words if re.fullmatch(r"[\w/.]+\.(py|md)", word)}
    assert paths
    assert [p for p in paths if not any(f"/{file}".endswith(f"/{p}") for file in files)] == []
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    classes = {m[1] for word in words if (m := re.fullmatch(r"([A-Z][a-z]\w{2,})(\.\w+)?", word))}
    assert classes
    assert [name for name in classes if f"\nclass {name}" not in sources] == []


def test_site_lists_versions_newest_first(tmp_path: Path) -> None:
    """Releases precede pre-releases; other folders are no versions."""
    for name in ("1.9.0", "1.10.0", "2.0.0rc1", "images"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").touch()
    (tmp_path / "3.0.0").mkdir()
    versions = ["1.10.0", "1.9.0", "2.0.0rc1"]
    assert list_versions(tmp_path) == versions
    assert (tmp_path / "versions.js").read_text() == f"const versions = {json.dumps(versions)};\n"
    assert 'href="1.10.0/index.html"' in (tmp_path / "index.html").read_text()
