"""Sphinx settings: Markdown pages, executed tutorials, and a reference page for each public name."""

import os
from typing import Any

from geoeq import __version__

project = "geoeq"
author = "geoeq developers"
copyright = "2026, geoeq developers"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"geoeq {release}"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

# The tutorials run at every build, and a cell that fails fails the build. A cell may take longer on a busy machine.
nb_execution_mode = "force"
nb_execution_timeout = int(300 * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1)))
nb_execution_raise_on_error = True
nb_merge_streams = True

# One page for each name in the __all__ of the packages that api/index.md lists.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["metatensor", "metatomic", "torch_sim"]  # extras that need not be installed
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes", "Source", "Differs"]

# Types of other packages are links where their inventories can be fetched: DOCS_ONLINE=1 make docs.
if os.environ.get("DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "torch_geometric": ("https://pytorch-geometric.readthedocs.io/en/latest", None),
        "e3nn": ("https://docs.e3nn.org/en/stable", None),
        "ase": ("https://ase-lib.org", None),
    }


def collapse_sidebar(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Expand only the branch of the current page: 500 pages of the reference in each sidebar take minutes to write."""
    if "toctree" in context:
        toctree = context["toctree"]
        context["toctree"] = lambda **options: toctree(**{**options, "collapse": True})


def setup(app: Any) -> None:
    """Connect the hook, before the theme's own, which renders the sidebar."""
    app.connect("html-page-context", collapse_sidebar, priority=400)
