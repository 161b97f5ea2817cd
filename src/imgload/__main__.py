"""The program: ``imgload``, ``kubectl imgload``, ``python -m imgload``."""

from __future__ import annotations

import gc

gc.set_threshold(20_000, 20, 20)  # imports make little garbage, and looking for it takes 10 ms

from imgload.cli.app import program  # noqa: E402

__all__ = ["program"]

if __name__ == "__main__":
    program()
