"""The documentation: what it shows can be typed, what it names is there.

Links, references and docstrings are checked where the site is built, by `scripts/docs`.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import imgload
from docs.generated import PAGES, command_line, error_tables, library
from imgload.cli.app import cli
from imgload.core.errors import ImgloadError
from tests.engine.test_costs import COSTS
from tests.unit.test_peers_page import defined

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROOTS = ("src", "tests", "docs")
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
}
_BLOCK = re.compile(r"^ *```(console|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SEPARATES = set("|&;()<>\n")


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of imgload in the console and shell blocks of a page."""
    for kind, block in _BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        typed = [li[2:] for li in lines if li.startswith("$ ")] if kind == "console" else lines
        for line in typed:
            yield from _calls(line)


def _calls(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    call: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= _SEPARATES:
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
def test_the_reader_finds_the_calls(line: str, expected: list[list[str]]) -> None:
    """What it overlooked would go unchecked."""
    assert list(_calls(line)) == expected
    assert list(commands_in(f"```console\n$ {line}\noutput\n```\n")) == expected


@pytest.mark.parametrize(("page", "call"), CALLS, ids=lambda value: str(value)[:60])
def test_every_call_that_is_shown_is_understood(page: str, call: list[str]) -> None:
    """Commands and options that are gone or renamed are shown nowhere."""
    context = click.Context(cli, info_name="imgload", **cli.context_settings)
    command: click.Command | None = cli
    while isinstance(command, click.Group) and call and not call[0].startswith("-"):
        name, *call = call
        command = command.get_command(context, name)
    assert command is not None, page
    with contextlib.suppress(click.exceptions.Exit):  # what --help and --version end with
        command.make_context(command.name, list(call), parent=context)


def test_enough_is_shown() -> None:
    """The pages do show calls."""
    assert {"README.md", "docs/start.md", "docs/images.md"} <= {page for page, _ in CALLS}


def test_every_command_and_option_is_in_the_reference() -> None:
    """In the page that the site is built from."""
    page = command_line()
    context = click.Context(cli, info_name="imgload")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command
        section = page.partition(f"\n## imgload {name}\n")[2].partition("\n## ")[0]
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        assert [o.name for o in options if o.opts[0] not in section] == []


def test_every_public_name_is_in_the_reference() -> None:
    """Errors in their table, too."""
    names = [name for name in imgload.__all__ if not name.startswith("__")]
    assert [name for name in names if f":: imgload.{name}\n" not in library()] == []
    values = {name: getattr(imgload, name) for name in names if name != "ImgloadError"}
    errors = [n for n, v in values.items() if inspect.isclass(v) and issubclass(v, ImgloadError)]
    assert [name for name in errors if f"`imgload.{name}`" not in error_tables()] == []


def test_each_generated_part_has_its_page() -> None:
    """A page that was moved would stay empty."""
    assert [page for page in PAGES if not (DOCS / f"{page}.md").is_file()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_the_tests_that_are_named_exist(page: str) -> None:
    """A claim stands on its test."""
    assert set(re.findall(r"`(test_\w+)`", TEXTS[page])) <= defined("**/test_*.py")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_the_site_lead_to_files(page: str) -> None:
    """The build of the site checks the links of its own pages."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page])
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    ("row", "action"),
    [("present", "present"), ("one more name", "tagged"), ("full", "full"), ("rebuild", "delta")],
)
def test_the_counts_are_those_of_the_test(row: str, action: str) -> None:
    """docs/how-it-works.md, and the table in tests/engine/test_costs.py."""
    cells = rf"^\| {row}[^|]*\| (\d+) \| (\d+) \| (\d+) \|$"
    found = re.search(cells, TEXTS["docs/how-it-works.md"], re.MULTILINE)
    cost = COSTS["docker", "lab-d21"][action]
    assert found
    assert [int(n) for n in found.groups()] == [cost.execs, cost.asked, cost.pushed]


def said() -> list[str]:
    """Return every piece of text in the sources."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in nodes if isinstance(node.value, str)]


def is_said(words: str, texts: list[str]) -> bool:
    """Whether a text has the words, or two together, the one ending where the other begins."""
    starts = [words[:i] for i in range(1, len(words)) if words[i - 1] == " "]
    return any(words in text for text in texts) or any(
        any(text.endswith(start) for text in texts)
        and any(text.startswith(words[len(start) :]) for text in texts)
        for start in starts
    )


def test_every_error_that_can_be_looked_up_is_still_said() -> None:
    """docs/troubleshooting.md is searched for the words of an error."""
    page = TEXTS["docs/troubleshooting.md"].partition("\n## The engine\n")[2]
    headings = re.findall(r"^### (.*)", page, re.MULTILINE)
    quoted = [text for heading in headings for text in re.findall(r"`([^`]+)`", heading)]
    pieces = {
        part.strip(" :,") for text in quoted for part in text.removeprefix("note: ").split("…")
    }
    assert len(pieces) > 40
    texts = said()
    assert [p for p in sorted(pieces) if not is_said(p, texts)] == []


def test_every_kind_of_error_can_be_looked_up() -> None:
    """Each class that is raised somewhere."""
    kinds = set(re.findall(r"^\| `([a-z-]+)` \|", error_tables(), re.MULTILINE))
    bases = {"image-error", "cluster-error", "engine-error", "node-error"}
    page = TEXTS["docs/troubleshooting.md"]
    listed = set(re.findall(r"^### .*\n\n`([a-z-]+)`", page, re.MULTILINE))
    assert kinds - bases - {"load-failed", "prune-failed"} == listed


CONTRIBUTING = TEXTS["CONTRIBUTING.md"]
PACKAGE = ROOT / "src/imgload"
FOLDERS = {f"{p.parent.relative_to(PACKAGE)}/" for p in PACKAGE.glob("*/**/*.py")} - {"tools/"}


def test_the_map_of_tests_names_every_folder_and_every_engine_test() -> None:
    """The table in CONTRIBUTING.md."""
    rows = dict(re.findall(r"^\| (\S+) \| (.*) \|$", CONTRIBUTING, re.MULTILINE))
    tests = {name for row in rows.values() for name in re.findall(r"`(test_\w+\.py)`", row)}
    assert tests == {path.name for path in (ROOT / "tests/engine").glob("test_*.py")}
    assert {name.strip("`") for name in rows if name.endswith("/`")} == FOLDERS


def test_unit_tests_mirror_the_folders_of_the_sources() -> None:
    """A folder of tests whose folder of sources was renamed covers nothing that can be named."""
    tests = ROOT / "tests/unit"
    folders = {f"{path.parent.relative_to(tests)}/" for path in tests.glob("*/**/test_*.py")}
    assert folders <= FOLDERS


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_files_and_classes_that_are_named_exist(page: str) -> None:
    """A file is named by its path, or by its name where the row names its folder."""
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
