"""`kinship matrix` and `kinship advise`."""

import csv
import math
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from kinship.checkpoints.references import short_names
from kinship.checkpoints.tensor_names import GROUPINGS
from kinship.errors import InvalidConfig, KinshipError
from kinship.measures.advice import EVIDENCE, advise
from kinship.measures.comparison import Comparison, ComparisonOptions, compare, kinship_matrix
from kinship.measures.matrix import KinshipMatrix
from kinship.measures.preflight import Preflight, preflight
from kinship.output import output_file, require_writable
from service.console import byte_progress, console, notes, print_json
from service.pages.figures import PICTURES, require_suffix, save_figure

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = (".csv", ".json", ".npz", ".html", *PICTURES)
MOST_PAIRS = 8
WIDE = 78  # columns beyond which models are numbered in the header


def run(
    models: list[str],
    base: str,
    metric: str,
    by: str | None,
    options: ComparisonOptions,
    out: list[Path],
    *,
    dry_run: bool,
    as_json: bool,
    force: bool,
) -> None:
    """Compute, print and write a kinship matrix."""
    if by is not None and by not in GROUPINGS:
        raise InvalidConfig(f"Tensors cannot be grouped by {by!r}.", hint=f"Use one of: {', '.join(GROUPINGS)}.")
    if dry_run:
        print_plan(preflight(models, base, options), as_json=as_json)
        return
    for path in out:
        require_suffix(path, (".csv", *PICTURES) if by else FORMATS)
        require_writable(path, force=force)
    with byte_progress("Reading weights", quiet=as_json) as progress:
        comparison = compare(models, base, metric, options, progress)
    matrix = comparison.matrix(metric)
    replaced = [path for path in out if path.exists() and _compared_otherwise(path, matrix)]
    groups = comparison.by_group(by, metric) if by else {}
    for path in out:
        if by:
            save_groups(groups, by, path, force=force)
        else:
            save(matrix, path, force=force)
    if as_json:
        content = matrix.to_dict() | {
            "relative_norms": comparison.relative_norms(),
            "unrelated": comparison.unrelated(metric),
            "notes": list(comparison.notes),
            "share": comparison.share,
        }
        if by:
            content |= {"by": by, "groups": {label: group.to_dict()["values"] for label, group in groups.items()}}
        print_json(content)
        return
    console().print(groups_table(groups, str(by)) if by else matrix_table(matrix))
    print_summary(comparison, matrix)
    if comparison.remembered:
        notes().print("Known from an earlier comparison of these files; no weights were read.")
    for path in replaced:
        notes().print(f"[yellow]Note:[/] {path} was about other tensors: its entries and these are not comparable.")
    for path in out:
        notes().print(f"Wrote {path}")


def run_advise(models: list[str], base: str, metric: str, options: ComparisonOptions, *, as_json: bool) -> None:
    """Rank pairs for merging."""
    with byte_progress("Reading weights", quiet=as_json) as progress:
        matrix = kinship_matrix(models, base, metric, options, progress)
    ranking = advise(matrix)
    if as_json:
        pairs = [
            {"pair": list(a.pair), "kinship": a.kinship, "relation": a.relation, "reason": a.reason} for a in ranking
        ]
        print_json({"schema": "kinship.advice/1", "metric": metric, "base": base, "pairs": pairs, "evidence": EVIDENCE})
        return
    from rich.table import Table

    names = dict(zip(matrix.ids, short_names(matrix.ids), strict=True))
    table = Table(title="Pairs to merge, the least related first", title_justify="left")
    for header in ("pair", metric, "relation", "why"):
        table.add_column(header, justify="right" if header == metric else "left")
    for advice in ranking:
        pair = " + ".join(names[id] for id in advice.pair)
        table.add_row(pair, f"{advice.kinship:.4f}", advice.relation, advice.reason)
    console().print(table)
    console().print(EVIDENCE)


def print_plan(plan: Preflight, *, as_json: bool) -> None:
    """What would be read, from headers alone."""
    if as_json:
        print_json(plan.to_dict())
        return
    console().print(f"{plan.models} models, {plan.tensors} tensors, {plan.parameters:,} parameters each")
    if plan.bytes_to_download:
        console().print(f"{decimal(plan.bytes_to_download)} to download, which the Hub cache lacks")
    trial = "" if plan.weights_here else " (timed on zeros: the weights are not here yet)"
    console().print(f"{decimal(plan.bytes_to_read)} to read, about {plan.seconds:.1f} s once in memory{trial}")
    console().print(f"{decimal(plan.peak_memory)} of memory beside the program")
    for name, reason in plan.left_out.items():
        console().print(f"left out: {name}: {reason}")


def print_summary(comparison: Comparison, matrix: KinshipMatrix) -> None:
    """What the table does not say: what was compared, and what was not."""
    from rich.markup import escape

    share = "all" if comparison.share == 1 else f"{comparison.share:.2%}"
    summary = f"{matrix.spec.label} of task vectors over {matrix.tensors} tensors with {share} of the parameters"
    if not math.isnan(matrix.mean()):
        summary += f"; mean of all pairs {matrix.mean():.4f}"
    unrelated = comparison.unrelated(matrix.metric)
    if unrelated:  # that it is 0 goes without saying
        summary += f" (unrelated models: about {unrelated:.4g})"
    console().print(summary + ".")
    names = dict(zip(matrix.ids, short_names(matrix.ids), strict=True))
    norms = [f"{names[id]} {value:.3g}" for id, value in comparison.relative_norms().items()]
    if norms:
        console().print(f"Length of the task vectors over that of the base: {', '.join(norms)}.")
    for name in matrix.without_direction():
        notes().print(f"[yellow]Note:[/] {name} equals the base: it has no direction, so no {matrix.metric} either.")
    for note in comparison.notes:
        notes().print(f"[yellow]Note:[/] {escape(note)}")
    if matrix.left_out:
        name, reason = next(iter(matrix.left_out.items()))
        notes().print(f"[yellow]Note:[/] {len(matrix.left_out)} tensors were left out, such as {name}: {reason}.")


def save(matrix: KinshipMatrix, path: Path, *, force: bool = False) -> None:
    """Write the matrix in the format that the suffix names."""
    if path.suffix in PICTURES:
        from kinship.pictures.plots import heatmap

        save_figure(heatmap(matrix), path, force=force)
        return
    with output_file(path, force=force) as partial:
        if path.suffix == ".html":
            from service.pages.page import matrix_page

            partial.write_text(matrix_page(matrix), encoding="utf-8")
        else:
            matrix.save(partial, path.suffix)


def _compared_otherwise(path: Path, matrix: KinshipMatrix) -> bool:
    """Whether ``path`` holds a matrix that was made over another set of tensors."""
    if path.suffix not in (".json", ".npz"):
        return False
    try:
        before = KinshipMatrix.load(path)
    except KinshipError:
        return False
    return bool(before.compared) and before.compared != matrix.compared


def save_groups(groups: dict[str, KinshipMatrix], by: str, path: Path, *, force: bool = False) -> None:
    """Write kinship by group as a picture, or as ``.csv``: a row for each group and pair."""
    if path.suffix in PICTURES:
        from kinship.pictures.plots import profile

        save_figure(profile(groups, by), path, force=force)
        return
    with output_file(path, force=force) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([by, "one", "other", next(iter(groups.values())).metric])
        for label, matrix in groups.items():
            for one, other in combinations(matrix.ids, 2):
                value = matrix[one, other]
                writer.writerow([label, one, other, "" if math.isnan(value) else repr(value)])


def matrix_table(matrix: KinshipMatrix) -> "Table":
    """The matrix for a terminal; closer pairs are brighter, the diagonal is dim."""
    from rich.table import Table

    names = headers = short_names(matrix.ids)
    if max(map(len, names)) + sum(max(len(name), 7) + 3 for name in names) > WIDE:
        headers = [str(number) for number, _ in enumerate(names, 1)]
        names = [f"{number} {name}" for number, name in zip(headers, names, strict=True)]
    table = Table(title=f"Kinship to {short_names([matrix.base])[0]} ({matrix.metric})", title_justify="left")
    table.add_column("", no_wrap=True)
    for header in headers:
        table.add_column(header, justify="right")
    for row, name in enumerate(names):
        table.add_row(name, *(_cell(matrix, row, column) for column in range(len(names))))
    return table


def groups_table(groups: dict[str, KinshipMatrix], by: str) -> "Table":
    """Kinship by group: a column a pair, or mean and range where there are many."""
    from rich.table import Table

    table = Table(title=f"Kinship by {by}", title_justify="left")
    table.add_column(by)
    first = next(iter(groups.values()))
    names = dict(zip(first.ids, short_names(first.ids), strict=True))
    pairs = list(combinations(first.ids, 2))
    headers = [f"{names[one]} + {names[other]}" for one, other in pairs]
    if len(pairs) > MOST_PAIRS:
        headers = ["mean", "lowest", "highest"]
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    for label, matrix in groups.items():
        values = [matrix[pair] for pair in pairs]
        if len(pairs) > MOST_PAIRS:
            known = [value for value in values if not math.isnan(value)] or [math.nan]
            values = [sum(known) / len(known), min(known), max(known)]
        table.add_row(label, *("-" if math.isnan(value) else f"{value:.4f}" for value in values))
    return table


def _cell(matrix: KinshipMatrix, row: int, column: int) -> str:
    value = float(matrix.values[row, column])
    text = "-" if math.isnan(value) else f"{value:.4f}"
    if row == column or math.isnan(value):
        return f"[dim]{text}[/]"
    if not matrix.spec.higher_is_closer:
        return text
    colour = ("bright_black", "blue", "cyan", "yellow")[min(3, max(0, int(value * 4)))]
    return f"[{colour}]{text}[/]"
