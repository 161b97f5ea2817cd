"""Names in the test tables of other parsers, and their normal form.

`names_of_others.json` has, by table, the name and its normal form, or null for an invalid name. A
row with `imgload` is parsed otherwise, and says why. The tables are those of the parser of the
kubelet and containerd (distribution/reference at 0965666, Apache License 2.0), of kind (at
fed26882, Apache License 2.0) and of k3d (at 46f3480d, MIT License).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imgload.core.errors import ReferenceInvalid
from imgload.oci.reference import Reference, image_id_prefix, parse_unless_id

_TABLES: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("names_of_others.json").read_bytes()
)
_ROWS = [
    pytest.param(name, row, id=f"{table}: {name:.60}")
    for table, rows in _TABLES.items()
    for name, row in rows.items()
]


@pytest.mark.parametrize(("name", "row"), _ROWS)
def test_a_name_means_the_same(name: str, row: Any) -> None:
    """With a digest, some parsers drop the tag, as CRI does."""
    expected = row["imgload"] if isinstance(row, dict) else row
    if expected is None:
        with pytest.raises(ReferenceInvalid):
            Reference.parse(name)
    elif expected.startswith("sha256:"):
        assert parse_unless_id(name) is None
        assert image_id_prefix(name) == expected.removeprefix("sha256:")
    else:
        reference = Reference.parse(name)
        assert expected in {str(reference), reference.record}


def test_a_row_that_differs_says_why() -> None:
    """And differs."""
    for rows in _TABLES.values():
        for row in (row for row in rows.values() if isinstance(row, dict)):
            assert row["why"]
            assert row["imgload"] != row["normal"]
