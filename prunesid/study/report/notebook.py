"""A notebook run on the study's results, and the page it becomes.

The page needs nothing beside itself: nbconvert's own templates fetch MathJax, require.js and
Mermaid from a network, so its plain one is used, inside a page of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from prunesid.core.files import atomic

CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 980px; padding: 24px; background: #fff; color: #1f2328;
  font: 15px/1.55 -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; } h2 { font-size: 19px; margin: 34px 0 8px; } .anchor-link { display: none; }
details { margin: 10px 0 4px; }
summary { color: #636c76; font-size: 12.5px; cursor: pointer; }
.highlight pre { margin: 0; padding: 8px 12px; overflow-x: auto; background: #f6f8fa;
  font: 12.5px/1.5 ui-monospace, Consolas, "DejaVu Sans Mono", monospace; }
.output_subarea { margin: 8px 0; overflow-x: auto; }
.output_subarea pre { white-space: pre-wrap; font-size: 13px; }
img { max-width: 100%; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  border-top: 2px solid #1f2328; border-bottom: 2px solid #1f2328; }
th, td { padding: 4px 10px; text-align: right; vertical-align: top; }
thead th { border-bottom: 1px solid #1f2328; }
tbody th { text-align: left; font-weight: 400; }
"""

# Code is there to be looked at, and out of the way of what it shows.
TEMPLATE = """
{%- extends "basic/index.html.j2" -%}
{% block input_group -%}
<details><summary>code</summary>{{ super() }}</details>
{%- endblock input_group %}
"""


def run_notebook(notebook: Path, parameters: Mapping[str, Any], output: Path) -> None:
    """Run the notebook in the working directory and write it with what it shows.

    `parameters` replace the values of the cell tagged `parameters`. An error in a cell is raised,
    and nothing is written.
    """
    with atomic(output) as temporary:
        papermill.execute_notebook(
            notebook, temporary, parameters=dict(parameters), kernel_name="python3",
            progress_bar=False, cwd=Path.cwd(),
        )  # fmt: skip


def write_page(notebook: Path, output: Path) -> None:
    """A notebook that was run, as one HTML page."""
    document = nbformat.read(notebook, as_version=4)
    exporter = HTMLExporter(template_name="basic", raw_template=TEMPLATE, config=Config({
        "HTMLExporter": {"exclude_input_prompt": True, "exclude_output_prompt": True},
        "TagRemovePreprocessor": {
            "enabled": True, "remove_cell_tags": ["injected-parameters", "parameters"],
        },
    }))  # fmt: skip
    body, _ = exporter.from_notebook_node(document)
    title = escape(_title(document))
    with atomic(output) as temporary:
        temporary.write_text(
            f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{HtmlFormatter(style="default").get_style_defs(".highlight")}
{CSS}</style>
</head>
<body>
{body}
</body>
</html>
""",
            encoding="utf-8",
        )


def _title(document: nbformat.NotebookNode) -> str:
    """The notebook's first headline."""
    lines = (line for cell in document.cells for line in cell.source.splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), "Notebook")
