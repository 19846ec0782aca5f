"""What an HTML form sends, as text: names may repeat, and order counts."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Request
from starlette.responses import RedirectResponse

Typed = Sequence[tuple[str, str]]


async def _typed(request: Request) -> Typed:
    return parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)


Form = Annotated[Typed, Depends(_typed)]


def every(form: Typed, name: str) -> list[str]:
    """All that was typed under a name, each once, blanks left out."""
    return list(dict.fromkeys(value.strip() for key, value in form if key == name and value.strip()))


def go_to(*parts: object) -> RedirectResponse:
    """After a form: to the page at these parts of a path."""
    return RedirectResponse("/" + "/".join(quote(str(part), safe="") for part in parts), 303)
