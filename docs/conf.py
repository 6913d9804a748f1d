"""Settings of Sphinx. `pip install ".[docs]"`, then `sphinx-build -W -n -b html docs build/html`."""

import os
import re

import hotrow

os.environ.setdefault("KERAS_BACKEND", "torch")  # autodoc imports hotrow.keras, which imports its backend

project = "hotrow"
author = copyright = "the hotrow developers"
release = version = hotrow.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
html_theme = "furo"
html_title = f"hotrow {release}"
html_copy_source = False
default_role = "code"
smartquotes = False  # "sum" is code

# Docstrings say types with shapes, "float32[R, D]", in place of annotations; no part of these is a name to link to.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_param = napoleon_use_rtype = False
napoleon_custom_sections = [("Raises", "params_style"), ("Attributes", "params_style"), "Shape", "Source"]


def formulas(app, what, name, obj, options, lines):
    """Shows as it stands what a docstring indents under a paragraph: formulas and code."""
    lines[:] = re.sub(r"^(\S.*\n)\n(?= )", r"\1\n::\n\n", "\n".join(lines), flags=re.MULTILINE).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", formulas, priority=1)  # before napoleon, which indents sections
