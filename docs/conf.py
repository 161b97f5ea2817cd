"""Configuration of Sphinx; `scripts/docs` runs it, with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import imgload  # noqa: E402
from docs.generated import PAGES  # noqa: E402

project = "imgload"
release = version = imgload.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "py:obj"
nitpicky = True
_UNDOCUMENTED = r"(?!imgload\.).*|imgload\.(clusters|sources|engines|oci\.document)\..*"
nitpick_ignore_regex = [(r"py:.*", _UNDOCUMENTED)]
"""Links into Python's own documentation need the network; internal modules have no page."""
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
html_theme = "furo"
html_title = f"imgload {version}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_copyright = False
templates_path = ["templates"]
_SIDEBAR = ("brand", "search", "scroll-start", "navigation", "versions", "scroll-end")
html_sidebars = {"**": [f"sidebar/{part}.html" for part in _SIDEBAR]}


def setup(app: Sphinx) -> None:
    """Append the generated text to pages as they are read."""
    app.connect("source-read", _complete)


def _complete(_app: Sphinx, page: str, source: list[str]) -> None:
    if page in PAGES:
        source[0] += PAGES[page]()
