"""The Skaffold example and the code on pages about other tools are valid."""

import re
import shlex
from pathlib import Path

import click
import mypy.api
import pytest
import yaml

from imgload.cli.app import cli

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/skaffold"
PAGES = {f"docs/{name}.md": name for name in ("skaffold", "tilt", "ci", "devspace")}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"\bimgload (?:load|verify|skaffold)\b[^\n|&>'`]*")


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    code = _BLOCK.findall((ROOT / page).read_text())
    return [body for block_language, body in code if block_language == language]


def parses(command_line: str) -> bool:
    """Parse a call of imgload; raises click's error if that fails."""
    name, *words = shlex.split(command_line)[1:]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    with command.make_context(name, words):
        return True


def test_the_examples_of_the_library_pass_mypy_strict(tmp_path: Path) -> None:
    """As in a caller's project."""
    examples = {
        tmp_path / f"{page}_{index}.py": code
        for page in ("doctor", "images-and-prune", "library", "watch")
        for index, code in enumerate(blocks(f"docs/{page}.md", "python"))
    }
    for path, code in examples.items():
        path.write_text(code)
    (tmp_path / "wrong.py").write_text('import imgload\nimgload.load("app", transport="fast")\n')
    options = ["--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "--no-error-summary"]
    output, _, status = mypy.api.run([*options, *map(str, examples)])
    assert (output, status) == ("", 0)
    assert len(examples) >= 10
    assert "[arg-type]" in mypy.api.run([*options, str(tmp_path / "wrong.py")])[0]


@pytest.mark.parametrize("page", PAGES)
def test_calls_in_the_files_of_other_tools_parse(page: str) -> None:
    """`test_docs.py` checks the syntax of these files."""
    code = [*blocks(page, "python"), *blocks(page, "yaml")]
    calls = [call for body in code for call in _CALL.findall(body)]
    assert calls
    assert all(map(parses, calls))


def test_calls_are_found_and_a_wrong_one_fails() -> None:
    calls = [
        c
        for page in PAGES
        for kind in ("yaml", "python")
        for c in _CALL.findall("".join(blocks(page, kind)))
    ]
    assert len(calls) >= 6
    with pytest.raises(click.NoSuchOption):
        parses("imgload load app:dev --nope")


def test_build_commands_in_the_skaffold_page_parse() -> None:
    rows = re.findall(
        r"^\| `(imgload skaffold[^`]*)` \|", (ROOT / "docs/skaffold.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 4
    assert all(map(parses, rows))


def test_the_example_builds_and_deploys_the_same_image() -> None:
    config = yaml.safe_load((EXAMPLE / "skaffold.yaml").read_text())
    [artifact] = config["build"]["artifacts"]
    assert parses(artifact["custom"]["buildCommand"].removeprefix("exec "))
    assert (EXAMPLE / artifact["custom"]["dependencies"]["dockerfile"]["path"]).is_file()
    paths = [EXAMPLE / path for path in config["manifests"]["rawYaml"]]
    manifests = [manifest for path in paths for manifest in yaml.safe_load_all(path.read_text())]
    [deployment] = [m for m in manifests if m["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == artifact["image"]
    assert container["imagePullPolicy"] == "IfNotPresent"
