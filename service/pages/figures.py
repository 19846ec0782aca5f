"""Pictures to files."""

from pathlib import Path
from typing import TYPE_CHECKING

from kinship.errors import InvalidConfig
from kinship.output import output_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")


def require_suffix(path: Path, known: tuple[str, ...]) -> None:
    """Raise `InvalidConfig` unless ``path`` ends in one of the ``known`` suffixes."""
    if path.suffix not in known:
        raise InvalidConfig(f"{path} has the unknown format {path.suffix!r}.", hint=f"Use one of: {', '.join(known)}.")


def save_figure(figure: "Figure", path: Path, *, force: bool = False) -> None:
    """Write a picture; the suffix names the format. SVG keeps its text as text."""
    import matplotlib as mpl

    with output_file(path, force=force) as partial, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kinship"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(partial, format=path.suffix[1:], dpi=120, metadata=metadata)
