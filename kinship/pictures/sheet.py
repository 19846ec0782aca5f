"""A sheet of paper measured in inches: what will stand where is known, and does not overlap, before it is drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kinship.pictures.layout import Point
from kinship.pictures.marks import Mark, Stroke

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = 7.0  # points of all text but titles
LINE = 1.3 * SIZE / 72  # inches from one line of text to the next
MARGIN, GAP = 0.15, 0.2  # inches around everything, and between columns of text


@lru_cache(maxsize=10_000)
def text_width(text: str, size: float = SIZE) -> float:
    """Inches that ``text`` takes in the font of all pictures."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, *_ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


@dataclass
class Sheet:
    """What is drawn: texts as (x, y, text, options of matplotlib), strokes along points, marks of models; y is down.

    where: which model is at a point. notes: what the legend has to add.
    """

    width: float
    height: float = 0.0
    texts: list[tuple[float, float, str, dict[str, Any]]] = field(default_factory=list)
    strokes: list[tuple[Sequence[Point], Stroke]] = field(default_factory=list)
    marks: list[tuple[float, float, float, Mark]] = field(default_factory=list)
    bars: list[tuple[float, float, float, float]] = field(default_factory=list)
    where: dict[Point, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        """One line, by default from ``x`` to the right and with its middle at ``y``."""
        self.texts.append((x, y, text, {"size": SIZE, "ha": "left", "va": "center"} | options))

    def legend(self, title: str, entries: "Iterable[tuple[Stroke | Mark | None, str]]") -> None:
        """A title, and below it signs with what they mean, in lines as long as the sheet is wide; at its end."""
        self.height += LINE / 2
        self.text(MARGIN, self.height + LINE / 2, title, weight="bold")
        x, self.height = MARGIN, self.height + 1.3 * LINE
        for sign, meaning in entries:
            room = 0.0 if sign is None else 0.4 if isinstance(sign, Stroke) else 0.18
            wide = room + text_width(meaning) + 0.25
            if x > MARGIN and x + wide > self.width:
                x, self.height = MARGIN, self.height + 1.3 * LINE
            middle = self.height + LINE / 2
            if isinstance(sign, Stroke):
                self.strokes.append(([(x, middle), (x + 0.33, middle)], sign))
            elif sign is not None:
                self.marks.append((x + 0.06, middle, 0.11, sign))
            self.text(x + room, middle, meaning)
            x += wide
        self.height += 1.3 * LINE

    def scale(self, label: str, low: float, high: float) -> None:
        """What colours stand for, as a line at the end of the sheet."""
        middle, x = self.height + LINE / 2, MARGIN
        ends = f"{label}: {low:.3f} or less", f"{high:.3f}"
        self.text(x, middle, ends[0])
        x += text_width(ends[0]) + 0.1
        self.bars.append((x, x + 1.2, middle - LINE / 3, middle + LINE / 3))
        self.text(x + 1.3, middle, ends[1])
        self.height += 1.3 * LINE

    def drawn(self) -> "Figure":
        """The sheet as a figure of its size."""
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure
        from matplotlib.path import Path

        figure = Figure(figsize=(self.width, self.height + MARGIN))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, self.width), ylim=(self.height + MARGIN, 0))
        axes.axis("off")
        segments: dict[Stroke, list[Sequence[Point]]] = {}
        for points, stroke in self.strokes:
            segments.setdefault(stroke, []).append(points)
        for stroke, alike in segments.items():
            axes.add_collection(LineCollection(alike, colors=stroke.colour, linestyles=[stroke.dash],
                                               linewidths=stroke.width, zorder=1))  # fmt: skip
        groups: dict[tuple[str, str], list[tuple[float, float, float, Mark]]] = {}
        for placed in self.marks:
            groups.setdefault((placed[3].shape, placed[3].dash), []).append(placed)
        for (shape, dash), placed_alike in groups.items():
            across, down, sizes, marks = zip(*placed_alike, strict=True)
            form = Path.unit_circle() if shape == "o" else shape
            areas, fills = [(72 * size) ** 2 for size in sizes], [mark.fill for mark in marks]
            axes.scatter(across, down, s=areas, color=fills, marker=form, edgecolor=marks[0].ring, linewidth=0.8,
                         linestyle=dash, zorder=3)  # fmt: skip
        for left, right, top, bottom in self.bars:
            axes.imshow([[index / 99 for index in range(100)]], cmap="cividis", extent=(left, right, bottom, top),
                        aspect="auto", zorder=2)  # fmt: skip
        axes.set(xlim=(0, self.width), ylim=(self.height + MARGIN, 0))
        for x, y, text, options in self.texts:
            axes.text(x, y, text, zorder=4, **options)
        return figure
