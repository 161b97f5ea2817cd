"""Validate documents against the published schema of the report."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

Json = dict[str, Any]
SCHEMA: Json = json.loads(files("imgload").joinpath("report.schema.json").read_bytes())
_FILES = {file.name: file for file in files("imgload").joinpath("schemas").iterdir()}
SCHEMAS = {name.removesuffix(".json"): json.loads(f.read_bytes()) for name, f in _FILES.items()}
"""The schemas of the documents of other commands."""


def complaints(document: object, schema: str = "") -> list[str]:
    """Return the errors of a document; properties that are not published are errors, too."""
    published = SCHEMAS[schema] if schema else SCHEMA
    errors = Draft202012Validator(_closed(published)).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


def _closed(schema: Any) -> Any:
    """Return the schema without additional properties."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "required" in schema:
        closed["additionalProperties"] = False
    return closed
