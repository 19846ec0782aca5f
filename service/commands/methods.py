"""`kinship methods`."""

from rich.markup import escape
from rich.table import Table

from kinship.errors import InvalidConfig
from kinship.validation import nearest
from merging.catalogue import HEADINGS, Entry, catalogue, default, limits
from service.console import console, print_json


def run(name: str | None, *, as_json: bool) -> None:
    """List all merge methods, or tell of the one called ``name`` in full."""
    entries = catalogue()
    if name is not None:
        known = [entry.name for entry in entries]
        entries = [entry for entry in entries if entry.name == name]
        if not entries:
            hint = nearest(name, known)
            raise InvalidConfig(f"There is no merge method {name!r}.", hint=f"{hint} `kinship methods` lists them all.")
    if as_json:
        print_json({"schema": "kinship.methods/1", "methods": [entry.to_dict() for entry in entries]})
    elif name is not None:
        show(entries[0])
    else:
        show_all(entries)


def show_all(entries: list[Entry]) -> None:
    """One line a method."""
    for taxon, heading in HEADINGS.items():
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
        for header, width in (("method", 16), ("base", 8), ("in span", 7), ("what it does", 0)):
            table.add_column(header, min_width=width, no_wrap=width > 0)
        group = [entry for entry in entries if entry.taxon == taxon]
        for entry in group:
            table.add_row(*map(escape, (entry.name, entry.base, entry.in_span or "", entry.summary)))
        if group:
            console().print(table)
            console().print()
    console().print("`kinship methods NAME` tells all of one; docs/merging.md helps to choose.", soft_wrap=True)


def show(entry: Entry) -> None:
    """Everything of one method."""
    facts = {
        "formula": entry.formula,
        "group": entry.taxon,
        "models": entry.counts,
        "base": entry.base,
        "in span": entry.in_span,
        "random": "yes" if entry.random else "no",
        "needs": entry.data,
        "reference": entry.reference,
        "defined in": entry.module,
    }
    console().print(f"[bold]{escape(entry.name)}[/]  {escape(entry.summary)}", soft_wrap=True)
    for label, fact in facts.items():
        if fact:
            console().print(f"  {label:<11}{escape(fact)}", soft_wrap=True)
    if not entry.parameters:
        console().print("It has no parameters.")
        return
    table = Table()
    for header in ("parameter", "default", "values", "by model", "meaning"):
        table.add_column(header, overflow="fold")
    for parameter in entry.parameters:
        by_model = "yes" if parameter.per_model else "no"
        table.add_row(parameter.name, default(parameter), limits(parameter), by_model, escape(parameter.help))
    console().print(table)
