"""`kinship methods`."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import Json
from service.console import console, print_json

if TYPE_CHECKING:
    from merging.catalogue import Entry
    from service.answers.methods import Method, Methods


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the merge methods, or tell all about one."""
    from service.answers.methods import entries, list_methods

    if as_json:
        print_json(list_methods(name))
    elif name is not None:
        print_method(entries(name)[0])
    else:
        print_methods(list_methods())


def print_methods(answer: "Methods") -> None:
    """One line a method, and below each group its classes in the surveys."""
    from rich.table import Table

    from merging.catalogue import HEADINGS

    for taxon, heading in HEADINGS.items():
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
        for header, width in (("method", 16), ("base", 8), ("in span", 7), ("what it does", 0)):
            table.add_column(header, min_width=width, no_wrap=width > 0)
        group = [method for method in answer.methods if method.taxon == taxon]
        for method in group:
            table.add_row(method.name, method.base, method.in_span, method.summary)
        if group:
            console().print(table)
            for line in _surveyed(group):
                console().print(line, soft_wrap=True)
            console().print()
    console().print("`kinship methods NAME` tells all of one; docs/merging.md helps to choose.", soft_wrap=True)


def _surveyed(group: "list[Method]") -> list[str]:
    """The classes of a group's methods, each with the names of its methods where there are several."""
    names: dict[str, list[str]] = {}
    for method in group:
        names.setdefault(f"{method.survey} in arXiv 2408.07666, {method.review} in 2503.08998", []).append(method.name)
    if len(names) == 1:
        return [f"({next(iter(names))})"]
    return [f"({', '.join(own)}: {classes})" for classes, own in names.items()]


def print_method(method: "Entry") -> None:
    """Everything of one method."""
    from rich.table import Table

    from merging.catalogue import default, limits
    from service.terminal import styled

    facts = {
        "formula": method.formula,
        "group": method.taxon,
        "surveys": f"{method.survey} (arXiv 2408.07666), {method.review} (arXiv 2503.08998)",
        "models": method.counts,
        "base": method.base,
        "in span": method.in_span,
        "random": "yes" if method.random else "no",
        "needs": method.data,
        "reference": method.reference,
        "defined in": method.module,
    }
    console().print(styled((method.name, "bold"), f"  {method.summary}"), soft_wrap=True)
    for label, fact in facts.items():
        if fact:
            console().print(f"  {label:<11}{fact}", soft_wrap=True)
    if not method.parameters:
        console().print("It has no parameters.")
        return
    table = Table()
    for header in ("parameter", "default", "values", "by model", "meaning"):
        table.add_column(header, overflow="fold", no_wrap=header == "parameter")
    for parameter in method.parameters:
        by_model = "yes" if parameter.per_model else "no"
        table.add_row(parameter.name, default(parameter), limits(parameter), by_model, parameter.help)
    console().print(table)
