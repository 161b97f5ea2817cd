"""Commands in hints: external text in them is always quoted as one word."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload

SOURCES = Path(imgload.__file__).parent
KEYWORDS = {"hint", "take", "undo"}
QUOTING = {
    *("shlex.quote", "shlex.join"),
    *("self.exec_command", "node.exec_command", "self.state_command"),
}
SAFE = {
    *("engine.name", "node.engine.name", "self.engine.name", "source.name", "held.engine.name"),
    *("node.name", "node.container.name", "self.container.name", "self.name", "first.name"),
    *(
        "sources[0].engine.name",
        "sources[0].listing",
        "error.hint",
        "candidate.undo",
        *("login.command", "self.login.command", "login.host"),
    ),
    *("tool.name", "tool.homepage", "tool.makes", "tool.name_flag", "error.ctx.command_path"),
    "ctx.command_path",
    *(
        "kind",
        "variable",
        "command",
        "survey.traits.platform",
        "traits.platform",
        "mismatch.hint",
        "platform",
        "wanted",
        "there[0]",
    ),
    *("found.target.short", "layer.digest", "see_config", "config"),
    *("tool", "origin", "self.disk_hint"),
}
"""Names of engines and nodes, platforms, digests, imgload's own words, and other hints, which are
checked themselves."""


class Quoted(ast.NodeTransformer):
    """Replaces quoted values by a constant."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return ast.Constant("x") if ast.unparse(node.func) in QUOTING else self.generic_visit(node)


def hints(scope: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions of hints."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Call):
            yield from (word.value for word in node.keywords if word.arg in KEYWORDS)
            if ast.unparse(node.func) == "Finding":
                yield from node.args[3:4]


def assigned(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            else:
                pairs = [(target, value)]
            yield from (v for t, v in pairs if name in {ast.unparse(n) for n in ast.walk(t)})


def loose(value: ast.AST, scope: ast.AST, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the values that become part of a hint without quoting."""
    for part in ast.walk(value):
        if isinstance(part, ast.Name) and part.id not in seen:
            for other in assigned(part.id, scope):
                yield from loose(other, scope, seen | {part.id})
        if isinstance(part, ast.FormattedValue):
            yield from unquoted(part.value, scope, seen)
        elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
            yield from unquoted(part.left, scope, seen)
            yield from unquoted(part.right, scope, seen)


def unquoted(value: ast.expr, scope: ast.AST, seen: frozenset[str]) -> Iterator[str]:
    text = ast.unparse(value)
    if isinstance(value, ast.Constant | ast.JoinedStr | ast.IfExp) or text in SAFE | seen:
        return
    if isinstance(value, ast.Call) and isinstance(value.args[0], ast.GeneratorExp):
        yield from unquoted(value.args[0].elt, scope, seen)
        return
    if isinstance(value, ast.Name) and list(assigned(text, scope)):
        for other in assigned(text, scope):
            yield from unquoted(other, scope, seen | {text})
            yield from loose(other, scope, seen | {text})
        return
    yield text


@pytest.mark.parametrize("path", [str(p.relative_to(SOURCES)) for p in SOURCES.rglob("*.py")])
def test_a_hint_quotes_external_text(path: str) -> None:
    """A path, URL or name that is pasted must not end the word, or the command."""
    tree = Quoted().visit(ast.parse((SOURCES / path).read_text()))
    scopes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    texts = {text for scope in scopes for value in hints(scope) for text in loose(value, scope)}
    assert texts == set()
