"""Decompression without the compiled packages, as in krew's plugin."""

from __future__ import annotations

import gzip
import sys

import pytest

from imgload.core.compression import decompressed
from imgload.core.errors import ArchiveInvalid

_EMPTY_FRAME = bytes.fromhex("28b52ffd2000010000")


def test_gzip_needs_no_compiled_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    assert b"".join(decompressed([gzip.compress(b"text")], "gzip", "the archive's")) == b"text"


def test_zstd_without_its_package_is_an_error_before_python_3_14(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python 3.14 includes zstd."""
    monkeypatch.setitem(sys.modules, "backports", None)
    if sys.version_info >= (3, 14):
        assert list(decompressed([_EMPTY_FRAME], "zstd", "the archive's")) in ([], [b""])
    else:
        with pytest.raises(ArchiveInvalid, match=r"backports\.zstd is missing") as caught:
            list(decompressed([_EMPTY_FRAME], "zstd", "the archive's"))
        assert caught.value.hint.startswith("zstd -d FILE")
