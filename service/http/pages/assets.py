"""Scripts, styles and pictures of the pages, from the package alone."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

VENDOR = "vendor/"


class Assets(StaticFiles):
    """What lies in ``service/static``. What others made has its digest in its address and is kept for good."""

    def __init__(self) -> None:
        super().__init__(directory=Path(str(files("service"))) / "static")

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, and for how long it may be kept."""
        response = await super().get_response(path, scope)
        kept = path.startswith(VENDOR) and scope["query_string"]
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "no-cache"
        return response


def address(name: str) -> str:
    """Where a file is served; of a vendored one, with its digest.

    >>> address("app.js")
    '/static/app.js'
    """
    digest = _digests().get(name.removeprefix(VENDOR)) if name.startswith(VENDOR) else None
    return f"/static/{name}?{digest[:12]}" if digest else f"/static/{name}"


@cache
def _digests() -> dict[str, str]:
    lines = (files("service") / "static/vendor/SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in map(str.split, lines)}
