"""How Sphinx reads these pages: Markdown as it stands on a code host, notebooks executed, nothing fetched."""

import os
from pathlib import Path

from ssvid import __version__

project = "ssvid"
author = "The ssvid developers"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"ssvid {version}"
copyright = author
html_static_path = ["_static"]
html_css_files = ["wrap.css"]

# Links such as evaluation.md#what-the-rows-are work here as on a code host.
myst_heading_anchors = 4

# The tour is run by the build: a cell that fails fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_merge_streams = True
# A notebook's process finds the checkout as this one does, and keeps its runs out of it (it works in a folder of its own).
nb_execution_in_temp = True
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [
    "Differs",
    ("Class attributes", "params_style"),
    ("Instance attributes", "params_style"),
]

# With -n every name of ours must lead somewhere. Names of other projects have no page here: nothing is fetched.
nitpick_ignore_regex = [("py:.*", r"(?!ssvid\b|pretext_tasks\b).*"), ("py:class", r".*\.(T|Made)")]
