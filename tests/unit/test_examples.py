"""The example, and the code on pages about other tools: it is what it says."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from imgload.cli.app import cli

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/skaffold"
PAGES = {f"docs/{name}.md": name for name in ("skaffold", "tilt", "ci", "pytest")}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"\bimgload (?:load|verify|skaffold)\b[^\n|&>'`]*")


def blocks(page: str, language: str) -> list[str]:
    """Return a page's blocks of code in a language."""
    found = _BLOCK.findall((ROOT / page).read_text())
    return [body for written_in, body in found if written_in == language]


def understood(command: str) -> bool:
    """Whether a call of imgload can be parsed; what is said is the test's failure."""
    name, *words = shlex.split(command)[1:]
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    with found.make_context(name, words):
        return True


@pytest.mark.parametrize("page", PAGES)
def test_code_is_code(page: str) -> None:
    """Python compiles, YAML can be read, and the calls in both are understood."""
    python, documents = blocks(page, "python"), blocks(page, "yaml")
    assert python or documents
    for body in python:
        compile(body, page, "exec")
    assert all(yaml.safe_load(body) for body in documents)
    calls = [call for body in (*python, *documents) for call in _CALL.findall(body)]
    assert all(map(understood, calls))


def test_calls_are_found_and_a_wrong_one_is_seen() -> None:
    """In a line of YAML, and in Python."""
    found = [
        c
        for page in PAGES
        for kind in ("yaml", "python")
        for c in _CALL.findall("".join(blocks(page, kind)))
    ]
    assert len(found) >= 6
    with pytest.raises(click.NoSuchOption):
        understood("imgload load app:dev --nope")


def test_the_table_of_build_commands_is_understood() -> None:
    """docs/skaffold.md."""
    rows = re.findall(
        r"^\| `(imgload skaffold[^`]*)` \|", (ROOT / "docs/skaffold.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 4
    assert all(map(understood, rows))


def test_the_example_is_built_by_imgload() -> None:
    """And its manifests name what it builds."""
    config = yaml.safe_load((EXAMPLE / "skaffold.yaml").read_text())
    [artifact] = config["build"]["artifacts"]
    assert understood(artifact["custom"]["buildCommand"].removeprefix("exec "))
    assert (EXAMPLE / artifact["custom"]["dependencies"]["dockerfile"]["path"]).is_file()
    paths = [EXAMPLE / path for path in config["manifests"]["rawYaml"]]
    manifests = [each for path in paths for each in yaml.safe_load_all(path.read_text())]
    [deployment] = [each for each in manifests if each["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == artifact["image"]
    assert container["imagePullPolicy"] == "IfNotPresent"
