"""Templates, and the words and figures in them."""

import math
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

from kinship.outside import json_text
from service.answers.served import Artefact
from service.http.pages.assets import address
from service.http.workspace import id_of_path
from service.pages.environment import page_environment

if TYPE_CHECKING:
    from jinja2 import Environment


def page(template: str, here: str, *, status: int = 200, json: str | None = None, **content: Any) -> HTMLResponse:
    """The template ``web/NAME.html`` filled in.

    here: the entry of the menu that it belongs to. json: below ``/api/v1``, where the same is plain data.
    """
    made = _environment().get_template(f"web/{template}.html").render(here=here, json=json, **content)
    return HTMLResponse(made, status, {"Cache-Control": "no-store"})


def signed(value: float | None) -> str:
    r"""A difference of scores, with a real minus.

    >>> signed(-0.012), signed(0.5)
    ('\u22120.0120', '+0.5000')
    """
    return "" if value is None else f"{value:+.4f}".replace("-", "\u2212")


def duration(seconds: float | None) -> str:
    """A time that people can read.

    >>> duration(42), duration(600), duration(9000), duration(400000), duration(None)
    ('42 s', '10 min', '2.5 h', '4.6 d', '')
    """
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"


def size(count: float | None) -> str:
    """Bytes that people can read.

    >>> size(900), size(2_500_000_000)
    ('900 B', '2.5 GB')
    """
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def briefly(value: Any) -> str:
    """A figure among words, in four digits.

    >>> briefly(0.0400688), briefly([42, 64]), briefly("same"), briefly(1.0)
    ('0.04007', '42, 64', 'same', '1')
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(briefly, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def by_folder(files: Sequence[Artefact]) -> list[tuple[str, list[Artefact]]]:
    """Files by the folder they lie in, those that lie in none first."""
    folders = sorted({file.path.rpartition("/")[0] for file in files})
    return [(folder, [file for file in files if file.path.rpartition("/")[0] == folder]) for folder in folders]


def embedded(content: Any) -> str:
    """JSON that may stand in an element: nothing in it can end that."""
    return json_text(content).replace("<", "\\u003c")


@cache
def _environment() -> "Environment":
    made = page_environment().overlay(trim_blocks=True, lstrip_blocks=True)
    made.filters = made.filters | {"signed": signed, "duration": duration, "size": size, "briefly": briefly}
    made.filters |= {"embedded": embedded, "as_id": id_of_path}
    made.globals = made.globals | {"asset": address, "version": version("model-kinship")}
    return made
