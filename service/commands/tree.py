"""`kinship tree`: a run's lineage, recorded or recovered descent of models, or their dendrogram."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinship.errors import InvalidConfig
from service.answers.dendrogram import Joining
from service.commands.options import AllowPickle, Force, Json, Metric, VerifyInputs, Vocab
from service.console import byte_progress, console, notes, print_json, stage_progress

if TYPE_CHECKING:
    from service.answers.dendrogram import Dendrogram
    from service.answers.tree import Descent, RecoveredHeritage


def tree(
    what: Annotated[list[str], typer.Argument(help="One run folder, or several models.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="For models: what they were fine-tuned from.")] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Who was made from whom by their recipes, lineage files and model cards.")
    ] = False,
    recover: Annotated[
        bool, typer.Option("--recover", help="Who was made from whom by their weights alone; --base if known.")
    ] = False,
    index: Annotated[
        Path | None,
        typer.Option(help="For --recover: an index of sketches, made where there is none; see kinship index."),
    ] = None,
    joining: Annotated[Joining, typer.Option(help="How a dendrogram is built.")] = "upgma",
    metric: Metric = "pcc",
    vocab: Vocab = "same",
    allow_pickle: AllowPickle = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write .html .png .svg .json .graphml .mmd, or a dendrogram's .png .svg .nwk."),
    ] = None,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Tell descent: the lineage of a run, or of models, as recorded or as recovered from weights.

    Without --recorded and --recover, several models and their --base give a dendrogram of kinship.
    """
    from search.ledger.location import holds_run

    if index is not None and not recover:
        raise InvalidConfig("--index is for --recover.", hint="kinship tree MODEL MODEL... --recover --index FILE")
    is_run = len(what) == 1 and holds_run(Path(what[0]))
    if is_run and (recorded or recover):
        raise InvalidConfig(
            f"{what[0]} is the folder of a run, whose lineage is in its ledger.", hint=f"kinship tree {what[0]}"
        )
    if is_run:
        _descent(what, out, {}, as_json=as_json, force=force)
    elif recorded or recover:
        how = {"base": base, "recorded": recorded, "recover": recover, "index": index, "allow_pickle": allow_pickle}
        _descent(what, out, how, as_json=as_json, force=force)
    else:
        how = {"metric": metric, "vocab": vocab, "allow_pickle": allow_pickle}
        _dendrogram(what, base, joining, out, how, as_json=as_json, force=force)


def _descent(what: list[str], out: list[Path] | None, how: dict[str, Any], *, as_json: bool, force: bool) -> None:
    """``how``: arguments of `trace_models`; none for the one run that ``what`` names."""
    from service.answers.tree import trace_models, trace_run
    from service.pages.files import require_files, save_tree

    files = require_files(out, "tree", force=force, inputs=what if how else [])
    recovered: list[RecoveredHeritage] = []
    if how:
        with stage_progress(quiet=as_json) as progress:
            answer: Descent = trace_models(what, **how, progress=progress, recovered=recovered.append)
    else:
        answer = trace_run(what[0])
    title = f"Family tree of {len(what)} models" if how else f"Family tree of {what[0]}"
    for path in files:
        save_tree(answer, path, title, force=force)
    print_json(answer) if as_json else print_descent(answer, recovered)
    for path in files:
        notes().print(f"Wrote {path}", soft_wrap=True)


def print_descent(answer: "Descent", recovered: "list[RecoveredHeritage]") -> None:
    """The tree in lines, what is wrong in it, and below the evidence of what was recovered from weights."""
    from kinship.trees.formats import to_lines
    from service.answers.tree import findings_of
    from service.commands.evidence import print_edges

    for line in to_lines(answer.tree()):
        console().print(line, soft_wrap=True)
    for finding in findings_of(answer):
        notes().print(f"Note: {finding.text}.", soft_wrap=True)
    for heritage in recovered:
        print_edges(heritage)


def _dendrogram(
    models: list[str],
    base: str | None,
    joining: Joining,
    out: list[Path] | None,
    how: dict[str, Any],
    *,
    as_json: bool,
    force: bool,
) -> None:
    """``how``: the metric, and options of the comparison."""
    if base is None or len(models) < 2:
        raise InvalidConfig(
            f"{models[0]!r} is not the folder of a run, and a dendrogram needs --base and at least two models.",
            hint="kinship tree RUN; kinship tree MODEL MODEL... --base BASE; or --recorded or --recover.",
        )
    from kinship.measures.options import ComparisonOptions
    from service.answers.dendrogram import Dendrogram
    from service.answers.matrix import measure_matrix
    from service.pages.files import PICTURES, require_files, save_dendrogram

    files = require_files(out, "dendrogram", force=force, inputs=[*models, base])
    if joining == "nj" and any(path.suffix in PICTURES for path in files):
        raise InvalidConfig(
            "A neighbour-joining tree has no root and is not drawn here.",
            hint="Write it with --out TREE.nwk and open it in a tree viewer, or use --joining upgma.",
        )
    metric, options = how.pop("metric"), ComparisonOptions(**how)
    with byte_progress("Reading weights", quiet=as_json) as progress:
        matrix = measure_matrix(models, base, metric, options, progress=progress).matrix()
    answer = Dendrogram.of(matrix, joining)
    for path in files:
        save_dendrogram(answer, matrix, path, force=force)
    print_json(answer) if as_json else print_dendrogram(answer, joining)
    for path in files:
        notes().print(f"Wrote {path}", soft_wrap=True)


def print_dendrogram(answer: "Dendrogram", joining: Joining) -> None:
    """The tree with the heights of its joins; of an unrooted one its Newick text."""
    if joining == "nj":
        console().print(answer.newick, soft_wrap=True)
        return
    import numpy as np

    from kinship.checkpoints.references import short_names
    from kinship.measures.metrics import get_metric
    from kinship.trees.dendrogram import dendrogram_lines

    metric = get_metric(answer.metric)
    height = f"1 - {metric.label}" if metric.higher_is_closer else metric.label
    console().print(f"Joined by average linkage; numbers are {height}: the lower, the closer.", soft_wrap=True)
    for line in dendrogram_lines(np.array(answer.linkage), short_names(answer.ids)):
        console().print(line, soft_wrap=True)
