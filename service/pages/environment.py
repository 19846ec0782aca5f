"""Jinja as all pages use it: what a template shows is text from outside, unless it says otherwise."""

from functools import cache
from typing import TYPE_CHECKING, Any

from kinship.outside import on_terminal

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def page_environment() -> "Environment":
    """The environment of the templates of `service`, of which each is compiled once; who adds to it makes an overlay.

    Every string is escaped, and shown `on_terminal`: on one line, letters that are not seen written out. The filter
    ``block`` keeps the line ends of texts that have several lines, ``as_score`` and ``signed`` are for numbers;
    ``safe`` is for what is HTML already.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("service"), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    environment.filters |= {"block": _block, "as_score": as_score, "signed": _signed}
    return environment


def as_score(value: float | None) -> str:
    """A score, in its metric's own unit.

    >>> as_score(0.61234), as_score(None)
    ('0.6123', '')
    """
    return "" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _shown(value: Any) -> Any:
    return on_terminal(value) if type(value) is str else value  # not Markup, which is HTML already


def _block(text: str) -> Any:
    from markupsafe import escape

    return escape("\n".join(map(on_terminal, text.split("\n"))))
