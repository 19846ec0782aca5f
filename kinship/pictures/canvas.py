"""What all pictures have in common: names are drawn as they are, and no picture is larger than a screen can show."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, MOST_PIXELS = 120, 30_000_000

Arguments = ParamSpec("Arguments")


@contextmanager
def plain_texts() -> Iterator[None]:
    """Within, ``$`` in a text is a dollar and begins no formula; SVG keeps its text as text, the same in every run."""
    import matplotlib as mpl

    settings = mpl.rc_context(
        {"text.parse_math": False, "text.usetex": False, "svg.fonttype": "none", "svg.hashsalt": "kinship"}
    )
    with settings, warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box, which says as much; it is whole in SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def picture(draw: "Callable[Arguments, Figure]") -> "Callable[Arguments, Figure]":
    """Decorates what makes a figure: its texts are made within `plain_texts`, as `save` saves them."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **options: Arguments.kwargs) -> "Figure":
        with plain_texts():
            return draw(*args, **options)

    return drawn


def save(figure: "Figure", path: Path, format: str) -> None:
    """Write ``figure`` as ``png`` or ``svg``; a large one in fewer dots an inch, `MOST_PIXELS` in all."""
    width, height = figure.get_size_inches()
    dpi = min(DPI, sqrt(MOST_PIXELS / (width * height)))
    with plain_texts():
        if (layout := figure.get_layout_engine()) is not None:
            # Once: with a layout left to do, savefig would draw everything twice.
            layout.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(path, format=format, dpi=dpi, metadata={"Date": None} if format == "svg" else {})
