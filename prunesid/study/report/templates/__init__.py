"""The HTML of the report's pages: Jinja templates and style sheets, in files beside this one."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: object) -> str:
    """The page of that template; texts among the values are escaped.

    jinja2.UndefinedError where the template needs a value that is not given.
    """
    return _PAGES.get_template(template).render(values)
