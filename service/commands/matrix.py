"""`kinship matrix`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinship.errors import KinshipError
from service.commands.options import (
    AllowPickle,
    DeviceName,
    Force,
    GroupingName,
    Json,
    Metric,
    VerifyInputs,
    Vocab,
)  # fmt: skip
from service.console import byte_progress, console, note, notes, print_json

if TYPE_CHECKING:
    from kinship.measures.matrix import KinshipMatrix
    from service.answers.matrix import Matrix, MatrixPlan


def matrix(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Folders, .safetensors files, Hub ids (org/name@revision), or BASE+ADAPTER; or a recipe's .yml alone.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The model they were fine-tuned from; default: a recipe's.", show_default=False),
    ] = None,
    metric: Metric = "pcc",
    rank: Annotated[int, typer.Option(min=1, help="Singular directions of each matrix, for subspace.")] = 16,
    by: Annotated[GroupingName | None, typer.Option(help="Also tell it apart by these.", show_default=False)] = None,
    include: Annotated[str | None, typer.Option(help="Only tensors whose name matches this.", metavar="REGEX")] = None,
    exclude: Annotated[str | None, typer.Option(help="No tensors whose name matches this.", metavar="REGEX")] = None,
    vocab: Vocab = "same",
    allow_pickle: AllowPickle = False,
    device: Annotated[DeviceName, typer.Option(help="What computes the products; cuda is untested.")] = "cpu",
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write .csv .json .npz .html .png .svg; may be repeated.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be read, from headers alone.")] = False,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Measure how the models' task vectors resemble each other.

    A task vector is a model's weights less those of its base.
    """
    from kinship.measures.options import ComparisonOptions
    from service.answers.matrix import measure_matrix, models_of, plan_matrix, require_grouping
    from service.pages.files import require_files, save_matrix

    require_grouping(by)
    models, base = models_of(models, base)
    options = ComparisonOptions(
        vocab=vocab, allow_pickle=allow_pickle, include=include, exclude=exclude, device=device, rank=rank
    )
    if dry_run:
        plan = plan_matrix(models, base, options)
        print_json(plan) if as_json else print_plan(plan)
        return
    files = require_files(out, "groups" if by else "matrix", force=force, inputs=[*models, base])
    known: list[str] = []
    with byte_progress("Reading weights", quiet=as_json) as progress:
        answer = measure_matrix(
            models, base, metric, options, by=by, progress=progress, remembered=lambda: known.append("known")
        )
    replaced = [path for path in files if path.exists() and _compared_otherwise(path, answer)]
    for path in files:
        save_matrix(answer, path, force=force)
    if as_json:
        print_json(answer)
        return
    print_matrix(answer)
    if known:
        notes().print("Known from an earlier comparison of these files; no weights were read.")
    for path in replaced:
        note(f"{path} was about other tensors: its entries and these are not comparable.")
    for path in files:
        notes().print(f"Wrote {path}", soft_wrap=True)


def print_plan(plan: "MatrixPlan") -> None:
    """What would be read, from headers alone."""
    from rich.filesize import decimal

    console().print(f"{plan.models} models, {plan.tensors} tensors, {plan.parameters:,} parameters each")
    if plan.bytes_to_download:
        console().print(f"{decimal(plan.bytes_to_download)} to download, which the Hub cache lacks")
    trial = "" if plan.weights_here else " (timed on zeros: the weights are not here yet)"
    console().print(f"{decimal(plan.bytes_to_read)} to read, about {plan.seconds:.1f} s once in memory{trial}")
    console().print(f"{decimal(plan.peak_memory)} of memory beside the program")
    for name, reason in plan.left_out.items():
        console().print(f"left out: {name}: {reason}")


def print_matrix(answer: "Matrix") -> None:
    """The matrix, or by groups; then what a table does not say: what was compared, and what was not."""
    from service.answers.matrix import left_out_told, without_direction_told
    from service.commands.kinship_table import MOST_IN_TABLE

    matrix = answer.matrix()
    print_table(matrix, answer.by_group(), answer.by)
    share = "all" if answer.share == 1 else f"{100 * answer.share:.2f} %"
    label = matrix.spec.label
    summary = (
        f"{label[0].upper()}{label[1:]} of task vectors over {matrix.tensors} tensors with {share} of the parameters"
    )
    if answer.mean is not None:
        summary += f"; mean of all pairs {answer.mean:.4f}"
    if answer.unrelated:  # that it is 0 goes without saying
        summary += f" (unrelated models: about {answer.unrelated:.4g})"
    console().print(summary + ".")
    names = _short_names(answer.ids)
    lengths = {names[id]: 100 * value for id, value in answer.relative_norms.items()}
    norms = [f"{name} {value:.3g}" for name, value in lengths.items()]
    if len(norms) > MOST_IN_TABLE:
        norms = [f"{min(lengths.values()):.3g} to {max(lengths.values()):.3g}"]
    if norms:
        console().print(f"Length of the task vectors, in % of the base's: {', '.join(norms)}.")
    for name in matrix.without_direction()[:MOST_IN_TABLE]:
        note(without_direction_told(name, matrix.metric))
    for text in answer.notes:
        note(text)
    if answer.left_out:
        note(f"{left_out_told(answer.left_out)}.")


def print_table(
    matrix: "KinshipMatrix", groups: "Mapping[str, KinshipMatrix] | None" = None, by: str | None = None
) -> None:
    """The matrix, or apart ``by`` groups, as far as it has room, and what its numbers stand for."""
    from service.commands.kinship_table import groups_table, matrix_table

    width = console().width
    table, legend = groups_table(groups, by, width) if groups and by else matrix_table(matrix, width)
    console().print(table)
    for line in legend:
        console().print(line)


def _short_names(ids: "list[str] | tuple[str, ...]") -> dict[str, str]:
    from kinship.checkpoints.references import short_names

    return dict(zip(ids, short_names(ids), strict=True))


def _compared_otherwise(path: Path, answer: "Matrix") -> bool:
    """Whether ``path`` holds a matrix that was made over another set of tensors."""
    from kinship.measures.matrix import KinshipMatrix

    if path.suffix not in (".json", ".npz"):
        return False
    try:
        before = KinshipMatrix.load(path)
    except KinshipError:
        return False
    return bool(before.compared) and before.compared != answer.compared
