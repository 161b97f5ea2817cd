"""The blocks of code in the README and in docs/, with the comments before them in the source.

`tests/engine/test_pages.py` executes a block unless the line before it is one of these comments:

* `<!-- not executed: REASON -->`
* `<!-- executed by test_NAME -->`

It executes the commands of `<!-- before: COMMANDS -->` before the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(
    r"""
    ^(?:<!--\ (?P<comment>(?:(?!-->).)+?)\s-->\n)?
    ```(?P<language>console|sh|python)\n(?P<code>.*?)^```$
    (?:\n\n```text\n(?P<output>.*?)^```$)?
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_PROMPT = re.compile(r"^\$ ", re.MULTILINE)


@attrs.frozen
class Snippet:
    """A block of code; `output` is the block of text after a program in Python."""

    language: str
    code: str
    output: str | None
    comment: str

    @property
    def executed(self) -> bool:
        """Whether `tests/engine/test_pages.py` executes the block."""
        return not self.comment or self.comment.startswith("before:")

    def steps(self) -> Iterator[tuple[str, str | None]]:
        """Yield shell commands, and the output that the page shows for each."""
        if self.comment:
            yield self.comment.removeprefix("before:").strip(), None
        if self.language == "python":
            yield f"cat >program.py <<'END'\n{self.code}END\npython program.py", self.output
        elif self.language == "sh":
            yield self.code, None
        else:
            for step in _PROMPT.split(self.code)[1:]:
                command, _, output = step.replace("\\\n", "").partition("\n")
                yield command, output.strip("\n") or None


def snippets(page: Path) -> list[Snippet]:
    """Return the blocks of a page in the languages of shells and of Python."""
    return [
        Snippet(block["language"], block["code"], block["output"], block["comment"] or "")
        for block in _BLOCK.finditer(page.read_text())
    ]
