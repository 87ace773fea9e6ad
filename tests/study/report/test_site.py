"""The source of the documentation site: every page is in it, and every link leads somewhere."""

from __future__ import annotations

import re

import pytest
import yaml
from builders.synthetic_scores import ROOT

from prunesid.methods.registry import METHODS
from prunesid.study.report.site import linked, write_source


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
    assert re.search(r"\| Authors' code \| .*commit [0-9a-f]{7} \|", page)
    assert re.search(r"\| Equal to it \| \d+ of \d+ cases", page)
    assert "| `regions` | runs | runs, quadrants |" in page
