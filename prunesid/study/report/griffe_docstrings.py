"""Docstrings as Markdown for the API page of the documentation site, as a Griffe extension."""

from __future__ import annotations

from typing import Any

import griffe

from prunesid.study.report.docstrings import markdown


class AsMarkdown(griffe.Extension):
    """Every docstring as `markdown` gives it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
