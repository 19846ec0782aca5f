"""One comparison of merge methods over several families of models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from service.answers.base import Answer, Part, named
from service.answers.method_comparison import Group, MethodComparison, NamedRow, Ranged

FAMILIES = "families.json"


class OverFamilies(Ranged):
    """A mean over families, with Student's interval of 95 %."""

    by_family: dict[str, float]
    """What it is the mean of."""


class FamilyRow(NamedRow):
    """A row that every family has scores of; if tuned, in each family for itself."""

    scores: dict[Group, OverFamilies]
    """Of held-out documents."""
    versus_reference: dict[Group, OverFamilies]
    """Less the reference in the same family; empty for the reference."""


class FamilyFinding(Part):
    """A finding of Tam et al. in each family."""

    finding: str
    """The claim."""
    verdicts: dict[str, Literal["agree", "disagree", "cannot be told"]]
    """By family."""


class ComparedFamilies(Answer):
    """Merge methods compared over several families."""

    schema_: Literal["kinship.compared-families/1"] = named("kinship.compared-families/1")
    families: list[str]
    """Folders of the comparisons, each with its own report."""
    reference: str
    """The method that others are compared with, untuned."""
    rows: list[FamilyRow]
    """Baselines, controls, methods."""
    rankings: dict[Group, list[str]]
    """Labels of the methods' rows, the best first, by their means."""
    findings: list[FamilyFinding]
    """One for each of the paper's."""


def pool_families(answers: Mapping[str, MethodComparison], folder: Path | None = None) -> ComparedFamilies:
    """What comparisons of one plan, by family, say together; written to ``folder`` where one is given."""
    from kinship.output import output_file
    from search.comparison.families import pooled

    contents = {name: answer.content() for name, answer in answers.items()}
    answer = ComparedFamilies.model_validate(pooled(contents))
    if folder is not None:
        with output_file(folder / FAMILIES, force=True) as partial:
            partial.write_text(answer.to_json() + "\n", encoding="utf-8")
    return answer
