"""Docstrings as Markdown: no word is lost, terms are a list, and sentences end where they do."""

from __future__ import annotations

import inspect
import re

import pytest

import prunesid
from prunesid.methods.registry import METHODS
from prunesid.study.report.docstrings import escaped, markdown, sentences
from prunesid.study.report.method_facts import about

TEXTS = {name: inspect.getdoc(getattr(prunesid, name)) or "" for name in prunesid.__all__}
for method in METHODS.names():
    TEXTS |= {f"{method}, {heading}": words for heading, words in about(method).texts}


@pytest.mark.parametrize("name", TEXTS)
def test_every_word_stays_in_its_order(name):
    def words(text):
        return re.findall(r"\w+", text.replace("&lt;", "<").replace("\\", ""))

    assert words(markdown(TEXTS[name])) == words(TEXTS[name])


def test_terms_prose_and_code():
    text = """Prose that
goes on.

short        what it
             means
much_longer  another
wide_as_this one space

    with it:
        run()"""
    assert markdown(text).split("\n\n") == [
        "Prose that goes on.",
        "- `short`: what it means\n- `much_longer`: another\n- `wide_as_this`: one space",
        "```python\nwith it:\n    run()\n```",
    ]


def test_marks_count_within_backquotes_alone():
    assert escaped(r"r_i [CLS] a < b \ `x_i [0] < 1`") == (
        r"r\_i \[CLS\] a &lt; b \\ `x_i [0] < 1`"
    )


def test_sentences():
    text = "By it (Du et al. 2016; Bo et al. Here), 0.5 of them.\nA v1.5 one. `x` is\nthe third."
    assert sentences(text) == [
        "By it (Du et al. 2016; Bo et al. Here), 0.5 of them.",
        "A v1.5 one.",
        "`x` is the third.",
    ]
