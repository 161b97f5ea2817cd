"""The published report.schema.json matches the reports.

cli/test_exit_status.py validates the output of the command, and tests/engine/test_report.py the
reports of real loads.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import get_args

import attrs
import pytest
from jsonschema import Draft202012Validator

from imgload.core.errors import JSON_VERSION
from imgload.loader.report import Action, NodeResult
from imgload.oci.digest import Digest
from tests.schema import SCHEMA, SCHEMAS, Json, complaints
from tests.unit.loader.test_report import BAD, GOOD, PROOF, report

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "report.md").read_text()
EXAMPLES = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_schema_is_valid() -> None:
    """A schema of the draft that it names."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["version"]["const"] == JSON_VERSION


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_of_each_document_is_valid_and_has_an_id(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == f"urn:imgload:schema:{name}:1"
    assert SCHEMA["$id"] == "urn:imgload:schema:report:1"
    if name != "image-list":  # a file that users write
        assert SCHEMAS[name]["properties"]["version"]["const"] == JSON_VERSION


@pytest.mark.parametrize(
    "node",
    [
        GOOD,
        BAD,
        NodeResult("n", "present", attrs.evolve(PROOF, cri=None)),
        NodeResult("n", "full", attrs.evolve(PROOF, cri=False), error=BAD.error),
        attrs.evolve(GOOD, replaced=Digest.of(b"old", "sha512")),
        attrs.evolve(GOOD, proof=None),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_every_result_matches_the_schema(node: NodeResult, *, dry_run: bool) -> None:
    """Success, failure, and dry run."""
    planned = attrs.evolve(node, bytes_missing=5 if dry_run else None)
    assert complaints(report(planned, dry_run=dry_run).to_json()) == []


def test_every_action_is_in_the_schema() -> None:
    """And no other value."""
    published = SCHEMA["$defs"]["node"]["properties"]["action"]["enum"]
    assert [action for action in published if action] == list(get_args(Action))


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_on_the_page_matches_the_schema(example: str) -> None:
    """In docs/reference/report.md, which users copy."""
    assert complaints(json.loads(example)) == []


def test_the_page_has_examples() -> None:
    """A report and an error."""
    assert {"error" in json.loads(example) for example in EXAMPLES} == {True, False}


def broken(change: str) -> Json:
    """Return a valid document with one change."""
    document = deepcopy(report(GOOD).to_json())
    node = document["images"][0]["nodes"][0]
    match change:
        case "version":
            document["version"] = 2
        case "unproven":
            node["proof"] = None
        case "cri said no":
            node["proof"]["cri"] = False
        case "ok beside an error":
            node["error"] = {"kind": "a", "message": "b", "hint": ""}
        case "no such action":
            node["action"] = "copied"
        case "short digest":
            document["images"][0]["image_id"] = "sha256:abc"
        case "negative":
            node["bytes_sent"] = -1
        case "unpublished":
            node["colour"] = "red"
        case _:
            del node[change]
    return document


@pytest.mark.parametrize(
    "change",
    [
        *("version", "unproven", "cri said no", "ok beside an error", "no such action"),
        *("short digest", "negative", "unpublished", "seconds", "proof"),
    ],
)
def test_an_invalid_document_does_not_match_the_schema(change: str) -> None:
    """For example, `ok` is never true without a proof."""
    assert complaints(broken(change)) != []
