"""`kinship advise`."""

from typing import TYPE_CHECKING

from service.commands.options import AllowPickle, Base, Json, Metric, Models, VerifyInputs, Vocab
from service.console import byte_progress, console, print_json

if TYPE_CHECKING:
    from service.answers.advice import Advice


def advise(
    models: Models,
    base: Base,
    metric: Metric = "pcc",
    vocab: Vocab = "same",
    allow_pickle: AllowPickle = False,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
) -> None:
    """Rank pairs for merging by kinship, and say what that is worth."""
    from kinship.measures.options import ComparisonOptions
    from service.answers.advice import advise_pairs

    options = ComparisonOptions(vocab=vocab, allow_pickle=allow_pickle)
    with byte_progress("Reading weights", quiet=as_json) as progress:
        answer = advise_pairs(models, base, metric, options, progress=progress)
    print_json(answer) if as_json else print_advice(answer, models)


def print_advice(answer: "Advice", models: list[str]) -> None:
    """A table of the pairs, and what the order is worth."""
    from rich.table import Table

    from kinship.checkpoints.references import short_names

    names = dict(zip(models, short_names(models), strict=True))
    table = Table(title="Pairs to merge, the least related first", title_justify="left")
    for header in ("pair", answer.metric, "relation", "why"):
        table.add_column(header, justify="right" if header == answer.metric else "left")
    for pair in answer.pairs:
        label = " + ".join(names[id] for id in pair.pair)
        table.add_row(label, f"{pair.kinship:.4f}", pair.relation, pair.reason)
    console().print(table)
    console().print(answer.evidence)
