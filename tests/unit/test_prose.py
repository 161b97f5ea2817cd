"""No phrases that make text hard to read, in the sources and the pages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "examples", "benchmarks/README.md")

PHRASES = re.compile(
    r"""\b(?:
        what (?=\s(?!if\b)\w)                  # free relatives; "what if" asks
      | whoever | who\sasks
      | told | said | (?:is|are|was|were)\s(?:meant|held)
      | anew | at\sonce | lets?\sgo | letting\sgo | besides | hence | in\svain
      | (?:is|are)\s(?-i:none) | asked\sfor | left\salone | (?:takes?|taken)\sback
      | (?<!-)proven | proves?
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""CONTRIBUTING.md has the rules and the words to use instead."""


def texts_of(source: str) -> Iterator[str]:
    """Yield the strings and the comments of Python code; consecutive comments are one text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    comment: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment.append(token.string.lstrip("# "))
        elif token.type not in {tokenize.NL, tokenize.INDENT, tokenize.DEDENT}:
            yield " ".join(comment)
            comment.clear()


def prose_of(page: str) -> str:
    """Return a page without its code, which quotes the program."""
    return re.sub(r"^ *```.*?^ *```$|`[^`]+`", "`…`", page, flags=re.MULTILINE | re.DOTALL)


def phrases_in(text: str) -> list[str]:
    return [" ".join(m[0].lower().split()) for m in PHRASES.finditer(" ".join(text.split()))]


def phrases_by_area() -> dict[str, list[str]]:
    """Return the phrases of each area, each with its file."""
    areas: dict[str, list[str]] = {}
    package = ROOT / "src/imgload"
    for path in sorted(package.rglob("*.py")):
        area, *rest = path.relative_to(package).parts
        counted = areas.setdefault(f"src/imgload/{area}/" if rest else "src/imgload", [])
        for text in texts_of(path.read_text()):
            counted += (f"{path.relative_to(ROOT)}: {phrase}" for phrase in phrases_in(text))
    for name in PAGES:
        top = ROOT / name
        for path in sorted(top.rglob("*.md")) if top.is_dir() else [top]:
            phrases = phrases_in(prose_of(path.read_text()))
            lines = [f"{path.relative_to(ROOT)}: {phrase}" for phrase in phrases]
            areas.setdefault(name, []).extend(lines)
    return areas


BY_AREA = phrases_by_area()


@pytest.mark.parametrize("area", BY_AREA)
def test_an_area_has_none_of_the_phrases(area: str) -> None:
    assert BY_AREA[area] == [], "name the thing instead"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return what the node has.", ["what"]),
        ("Return what\n    is there.", ["what"]),
        ("What if it fails? So what?", []),
        ("The engine is\ntold, at once.", ["told", "at once"]),
        ("`not-verified`, and not proven", ["proven"]),
        ("Return the layers that the node lacks.", []),
    ],
)
def test_phrases_are_counted_across_lines(text: str, expected: list[str]) -> None:
    assert phrases_in(prose_of(text)) == expected


def test_code_in_pages_and_names_in_sources_are_not_prose() -> None:
    page = "Text.\n\n```console\n$ x\nwhat is there\n```\n\n    And `what is there`, told."
    assert phrases_in(prose_of(page)) == ["told"]
    source = 'told = f"{what} is told"  # what it\n# is. Besides,\nwhat = 1\n'
    assert [p for text in texts_of(source) for p in phrases_in(text)] == [
        "told",
        "what",
        "besides",
    ]
