"""Pages: self-contained HTML from a template, with the style that all reports share.

Jinja2 runs with autoescape, so everything that a dataset says (instructions, names, paths) stays text. The
page fetches nothing and runs no script, so it opens offline and can be mailed.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined


def render(package: str, template: str, **values: Any) -> bytes:
    """Render a template to a page, in UTF-8.

    Args:
        package: package that holds the template.
        template: file name of the template, which may `include "looks.html"`.
        values: values that the template shows.
    """

    def read(name: str) -> str:
        where = "oxcart.manifests" if name == "looks.html" else package
        return resources.files(where).joinpath(name).read_text("utf-8")

    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.0%}"
    return environment.get_template(template).render(**values).encode(errors="backslashreplace")
