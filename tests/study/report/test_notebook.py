"""The notebook: committed without outputs, run whole, and a page that stands alone."""

from __future__ import annotations

import re

import nbformat
import pytest
from builders.synthetic_results import write_results
from builders.synthetic_scores import ROOT
from papermill.exceptions import PapermillExecutionError

from prunesid.study.report.notebook import run_notebook, write_page

NOTEBOOK = ROOT / "notebooks" / "first_questions.ipynb"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    write_results(folder / "made_up")
    executed = folder / "first_questions.ipynb"
    labels = {"vanilla": "all tokens", "default": "PruneSID, 64 tokens", "pocket_pope": "POPE"}
    given = {"folder": str(folder / "made_up"), "labels": labels}
    run_notebook(NOTEBOOK, given, executed)
    write_page(executed, folder / "page.html")
    return (folder / "page.html").read_text()


def test_it_is_committed_without_outputs():
    document = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(document)
    code = [cell for cell in document.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]


def test_it_answers_the_first_questions(page):
    assert page.count("data:image/png;base64,") == 2
    assert "<title>First questions to the results</title>" in page
    assert "all tokens and PruneSID, 64 tokens disagree on" in page
    assert page.count("<details>") == page.count("</details>") > 5
    assert "vanilla" not in re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    for word in ("best setting", "correlation", ">POPE<"):
        assert word in page


def test_its_page_needs_nothing_beside_itself(page):
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "<script" not in page and "@import" not in page and "url(" not in page
    assert "http" not in re.sub(r"data:image/png;base64,[^\"']*", "", page)


def test_an_error_is_raised_and_leaves_nothing(tmp_path):
    with pytest.raises(PapermillExecutionError, match="there are no results"):
        run_notebook(NOTEBOOK, {"folder": str(tmp_path)}, tmp_path / "executed.ipynb")
    assert not list(tmp_path.glob("*.ipynb"))
