"""The table of docs/architectures.md: ``python -m tests.architectures.table`` runs the suite and writes it."""

import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers.utils import logging

from tests.architectures.family import Family
from tests.architectures.rows import ROWS, Row
from tests.architectures.stages import STAGES, YES, outcome

DOCUMENT = Path(__file__).parents[2] / "docs/architectures.md"
BEGIN, END = "<!-- written by python -m tests.architectures.table -->\n", "<!-- end -->\n"
FAILED = "**no**"

Outcomes = dict[str, str]


def outcomes(row: Row, folder: Path) -> Outcomes:
    """What becomes of ``row`` in each stage; failures are told on the standard error."""
    found = {}
    family = Family(row, folder)
    for name, stage in STAGES.items():
        try:
            found[name] = outcome(stage, family)
        except Exception:
            print(f"== {row.name}: {name}", traceback.format_exc(limit=-3), sep="\n", file=sys.stderr)
            found[name] = FAILED
    return found


def render(found: Mapping[Row, Outcomes]) -> str:
    """Rows of Markdown, and the sentences of the refusals below."""
    sentences: list[str] = []
    lines = [
        f"| architecture | class | kind | files | {' | '.join(STAGES)} |",
        f"| --- | --- | --- | --- |{' --- |' * len(STAGES)}",
    ]
    for row, cells in found.items():
        shown = [_shown(cell, sentences) for cell in cells.values()]
        lines.append(f"| {row.name} | `{row.classname}` | {row.kind} | {row.files} | {' | '.join(shown)} |")
    notes = [f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _shown(cell: str, sentences: list[str]) -> str:
    if cell in (YES, FAILED):
        return cell
    if cell not in sentences:
        sentences.append(cell)
    return f"refused ({sentences.index(cell) + 1})"


def parse(text: str) -> dict[str, Outcomes]:
    """The outcomes of a rendered table by the names of rows, with the sentences of refusals."""
    content = text.partition(BEGIN)[2].partition(END)[0].splitlines()
    rows = [line.strip("|").split("|") for line in content if line.startswith("|")][2:]
    numbered = [line.partition(". ") for line in content if line[:1].isdigit()]
    sentences = {f"refused ({number})": sentence for number, _, sentence in numbered}
    found = {}
    for row in rows:
        name, _, _, _, *cells = (cell.strip() for cell in row)
        found[name] = {stage: sentences.get(cell, cell) for stage, cell in zip(STAGES, cells, strict=True)}
    return found


def main(names: Sequence[str]) -> None:
    """Run the rows whose names contain one of ``names``, all without any; the document is written of all alone."""
    logging.disable_progress_bar()
    with TemporaryDirectory() as place:
        chosen = [row for row in ROWS if not names or any(name in row.name for name in names)]
        found = {row: outcomes(row, Path(place, str(number))) for number, row in enumerate(chosen)}
    table = render(found)
    print(table)
    if not names:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
