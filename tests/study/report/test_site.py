"""The source of the documentation site: every page is in it, and every link leads somewhere."""

from __future__ import annotations

import re

import pytest
import yaml
from builders.synthetic_scores import ROOT

from prunesid.methods.registry import ENCODER, FEATURES, METHODS, QUESTION, list_methods
from prunesid.study.report.arm_facts import count_text
from prunesid.study.report.docstrings import sentences
from prunesid.study.report.method_facts import about
from prunesid.study.report.site import cost_text, idea, linked, write_source


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    write_source(folder)
    return folder


def named(part) -> list[str]:
    if isinstance(part, str):
        return [part]
    return [
        each
        for inner in (part.values() if isinstance(part, dict) else part)
        for each in named(inner)
    ]


def test_the_menu_has_every_page_and_no_other(site):
    menu = named(yaml.safe_load((site / "mkdocs.yml").read_text())["nav"])
    pages = {p.relative_to(site / "docs").as_posix() for p in (site / "docs").rglob("*.md")}
    assert set(menu) == pages and len(menu) == len(set(menu))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} < pages
    assert {f"method/{name}.md" for name in METHODS.names()} < pages


def test_every_link_leads_within_the_site(site):
    for page in (site / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).is_file(), (page.name, target)


def test_a_link_to_nothing_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("See [it](gone.md#part).")
    with pytest.raises(FileNotFoundError, match=r"page.md: the link to gone.md leads nowhere"):
        linked(page, tmp_path / "site", set())


def test_a_method_has_its_source_its_agreement_and_its_parameters(site):
    page = (site / "docs" / "method" / "hired.md").read_text()
    assert page.startswith("# hired\n") and "](hired.png)" in page
    assert re.search(r"\*\*Authors' code:\*\* .*commit [0-9a-f]{7}\n", page)
    assert re.search(r"\*\*Equal to it:\*\* \d+ of \d+ cases", page)
    assert "| `regions` | runs | runs, quadrants |" in page
    assert "- `regions`: shape of the sub-crops' regions" in page and "```" not in page


def test_methods_before_the_language_model_are_drawn_where_they_keep_patches(site):
    drawn = {path.stem for path in (site / "docs" / "method").glob("*.png")}
    before = set(list_methods(ENCODER, FEATURES, QUESTION))
    # Their tokens come from no patch of the image.
    assert drawn == before - {"downsample", "pool"} and "tome" in drawn


def test_the_idea_is_three_sentences_and_the_rest_is_not_lost():
    known = about("tome")
    said, rest = idea(known)
    assert len(sentences(said)) == 3 and said.startswith(known.summary)
    assert f"{said} {rest}".split() == f"{known.summary} {known.remarks}".split()
    # Without remarks, what the method's function says goes on.
    assert idea(about("grid"))[0].startswith(f"{about('grid').summary} Keep patches")


def test_the_cost_is_the_registered_formula():
    # 576 x 576 products of two tokens of 4096 channels.
    assert cost_text(about("divprune")).startswith("1.36 G multiply-adds for 64 of 576 tokens")
    assert "0.04 %" in cost_text(about("divprune"))
    # Of 24 blocks 23 merge 22 or 23 of their patches, by keys of 64 channels.
    entering = [576 - sum(23 if i < 6 else 22 for i in range(n)) for n in range(23)]
    pairs = sum((n + 2) // 2 * ((n + 1) // 2) * 64 for n in entering) + 512 * 1024
    assert cost_text(about("tome")).startswith(count_text(pairs))
    assert cost_text(about("cls_topk")) == "0 multiply-adds for 64 of 576 tokens on LLaVA-1.5-7B"
    assert cost_text(about("cdpruner")).endswith("the comparison with the question comes on top")
    assert cost_text(about("fastv")).startswith("depends on the prompt")


def test_the_api_page_has_docstrings_as_markdown():
    griffe = pytest.importorskip("griffe", reason="needs the extra `docs`")
    extensions = griffe.load_extensions("prunesid.study.report.griffe_docstrings")
    loaded = griffe.load("prunesid.generate.pruned", extensions=extensions)
    assert "\n- `budget`: tokens kept per image" in loaded["prune"].docstring.value
