"""A notebook run on the study's results, and the page it becomes.

The page needs nothing beside itself: nbconvert's own templates fetch MathJax, require.js and
Mermaid from a network, so its plain one is used, inside a page of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from prunesid.core.files import atomic
from prunesid.study.report import templates

# The kernel warns that its sockets are not encrypted; they are of the loopback, and signed.
QUIET = ["--log-level=ERROR"]
CELLS = Path(templates.__file__).with_name("cells.html")


def run_notebook(notebook: Path, parameters: Mapping[str, Any], output: Path) -> None:
    """Run the notebook in the working directory and write it with what it shows.

    `parameters` replace the values of the cell tagged `parameters`. An error in a cell is raised,
    and nothing is written.
    """
    with atomic(output) as temporary:
        place = {"kernel_name": "python3", "progress_bar": False, "cwd": Path.cwd()}
        papermill.execute_notebook(
            notebook, temporary, parameters=dict(parameters), extra_arguments=QUIET, **place
        )


def write_page(notebook: Path, output: Path) -> None:
    """A notebook that was run, as one HTML page."""
    document = nbformat.read(notebook, as_version=4)
    hidden = {"enabled": True, "remove_cell_tags": ["injected-parameters", "parameters"]}
    prompts = {"exclude_input_prompt": True, "exclude_output_prompt": True}
    config = Config({"HTMLExporter": prompts, "TagRemovePreprocessor": hidden})
    cells = CELLS.read_text(encoding="utf-8")
    exporter = HTMLExporter(template_name="basic", raw_template=cells, config=config)
    body, _ = exporter.from_notebook_node(document)
    highlight = HtmlFormatter(style="default").get_style_defs(".highlight")
    page = templates.render("notebook.html", title=_title(document), highlight=highlight, body=body)
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _title(document: nbformat.NotebookNode) -> str:
    """The notebook's first headline."""
    lines = (line for cell in document.cells for line in cell.source.splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), "Notebook")
