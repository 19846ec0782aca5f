"""`kinship advise`."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import AllowPickle, Base, Json, Metric, Models, VerifyInputs, Vocab
from service.console import byte_progress, console, print_json

if TYPE_CHECKING:
    from service.answers.advice import Advice

TITLES = {
    "kinship": "the least related first",
    "ranks": "by both ranks, least related and highest mean score",
    "expected": "by expected score",
}


def advise(
    models: Models,
    base: Base,
    metric: Metric = "pcc",
    vocab: Vocab = "same",
    allow_pickle: AllowPickle = False,
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|RUN",
            help="Scores of the models: a CSV (columns model and score), `kinship score --json`, or a run's folder.",
            show_default=False,
        ),
    ] = None,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
) -> None:
    """Rank pairs for merging by kinship, or by kinship and scores, and say what that is worth."""
    from kinship.measures.options import ComparisonOptions
    from service.answers.advice import advise_pairs

    options = ComparisonOptions(vocab=vocab, allow_pickle=allow_pickle)
    with byte_progress("Reading weights", quiet=as_json) as progress:
        answer = advise_pairs(models, base, metric, options, scores=scores, progress=progress)
    print_json(answer) if as_json else print_advice(answer, models)


def print_advice(answer: "Advice", models: list[str]) -> None:
    """A table of the pairs, and what the order is worth."""
    from rich.table import Table

    from kinship.checkpoints.references import short_names

    names = dict(zip(models, short_names(models), strict=True))
    table = Table(title=f"Pairs to merge, {TITLES[answer.order]}", title_justify="left")
    headers = ["pair", answer.metric, *(["scores"] if answer.scores else [])]
    headers += [*(["expected"] if answer.order == "expected" else []), "relation", "why"]
    for header in headers:
        table.add_column(header, justify="right" if header in {answer.metric, "scores", "expected"} else "left")
    for pair in answer.pairs:
        label = " + ".join(names[id] for id in pair.pair)
        numbers = [f"{pair.kinship:.4f}"]
        if pair.scores is not None:
            numbers.append(", ".join(f"{score:#.4g}" for score in pair.scores))
        if pair.expected is not None:
            numbers.append(f"{pair.expected:#.4g}")
        table.add_row(label, *numbers, pair.relation, pair.reason)
    console().print(table)
    console().print(answer.evidence)
