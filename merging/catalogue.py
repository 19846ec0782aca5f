"""The merge methods as documentation and ``kinship methods`` tell of them, from their specs alone.

``python -m merging.catalogue > docs/methods.md`` writes that file anew.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from merging.registry import MergeMethod, Parameter, Review, Survey, Taxon, methods

HEADINGS: dict[Taxon, str] = {
    "basic": "Basic: the same for every weight",
    "weighted": "Weighted: how much each model counts is worked out",
    "subspace": "Subspace: singular directions of task vectors",
    "sparsified": "Sparsified: some elements of task vectors are dropped",
    "alignment": "Alignment: models are matched before they are merged",
    "optimised": "Optimised: a loss is made small",
    "routing": "Routing: models side by side, chosen token by token",
    "calibrated": "Post-calibration: what a merge computes is mended afterwards",
}

# The classes of the two surveys that the taxa usually are; a method's spec says where it is in another.
SURVEYED: dict[Taxon, tuple[Survey, Review]] = {
    "basic": ("basic", "direct"),
    "weighted": ("weighted", "direct"),
    "subspace": ("subspace", "lora"),
    "sparsified": ("subspace", "magnitude"),
    "alignment": ("alignment", "permutation"),
    "optimised": ("other", "optimisation"),
    "routing": ("routing", "moe"),
    "calibrated": ("post-calibration", "optimisation"),
}

_INTRODUCTION = """# Merge methods

Written by `python -m merging.catalogue > docs/methods.md` from what the methods say of themselves.
[merging.md](merging.md) tells how to choose one, how to add one, and what is unlike mergekit.

θ₀ is the base model, θᵢ a model, τᵢ or d_i its task vector θᵢ - θ₀, wᵢ its weight. Base: whether the recipe must name
a base model; `merged`: it is one of the models merged; `optional`: with one task vectors are merged, without one the
models. In span: whether every tensor of the result is a weighted sum of the inputs', so that kinship to it follows
without its weights; `depends`: on a parameter. Data: whether the recipe needs a `data:` block, on whose documents the
models are measured. By model: each model may have a value of its own. Survey and review: the classes of
[arXiv 2408.07666](https://arxiv.org/abs/2408.07666) (weight alignment; basic, weighted, subspace, routing,
post-calibration, other) and [arXiv 2503.08998](https://arxiv.org/abs/2503.08998) (permutation, direct, pruning by
magnitude or activation, optimisation, low rank as of LoRA, mixture of experts). Methods that they do not name are where
they would belong. [merging.md](merging.md#what-is-left-out) tells what is left out, and why.
"""


@dataclass(frozen=True)
class Entry:
    """One method, whatever kind of spec describes it.

    models: how many it merges, at least and at most. base: no, optional, needed, or merged (it is one of the models).
    in_span: whether its result is a linear combination of the inputs (yes, no, or depends on a parameter). data: what
    it needs to see, if anything. module: where its kernel is. survey, review: its classes in the two surveys.
    """

    name: str
    summary: str
    taxon: Taxon
    formula: str
    reference: str
    parameters: tuple[Parameter, ...]
    models: tuple[int, int | None]
    base: str
    in_span: str
    random: bool
    data: str
    module: str
    survey: Survey
    review: Review

    @classmethod
    def of(cls, method: MergeMethod) -> "Entry":
        """What the spec of a method says."""
        base = "no" if method.base == "none" else method.base
        in_span = "depends" if method.combine and method.merge else "yes" if method.combine else "no"
        kernel = method.combine or method.merge
        module = method.module if kernel is None else kernel.__module__
        about = f"merging.methods.{method.name}" if kernel is None else module
        return cls(
            name=method.name,
            summary=method.summary
            or next(iter((getattr(sys.modules.get(about), "__doc__", None) or "").strip().splitlines()), ""),
            taxon=method.taxon,
            formula=method.formula,
            reference=method.reference,
            parameters=method.parameters,
            models=(method.min_models, method.max_models),
            base=base,
            in_span=in_span,
            random=method.random,
            data=method.data,
            module=module,
            survey=method.survey or SURVEYED[method.taxon][0],
            review=method.review or SURVEYED[method.taxon][1],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as docs/formats.md describes it."""
        least, most = self.models
        return {
            "name": self.name,
            "summary": self.summary,
            "taxon": self.taxon,
            "survey": self.survey,
            "review": self.review,
            "formula": self.formula,
            "min_models": least,
            "max_models": most,
            "base": self.base,
            "in_span": self.in_span,
            "random": self.random,
            "data": self.data or None,
            "parameters": [_parameter(parameter) for parameter in self.parameters],
            "reference": self.reference,
            "module": self.module,
        }

    @property
    def counts(self) -> str:
        """How many models it merges, for people."""
        least, most = self.models
        return str(least) if least == most else f"{least} or more" if most is None else f"{least} to {most}"


def catalogue() -> list[Entry]:
    """Every method, those of plugins included, in the order of taxa and names."""
    found = map(Entry.of, methods().values())
    order = get_args(Taxon)
    return sorted(found, key=lambda entry: (order.index(entry.taxon), entry.name))


def kind(parameter: Parameter) -> str:
    """What values of a parameter are.

    >>> kind(Parameter("normalize", "divide the weights by their sum", default=True))
    'boolean'
    """
    return "boolean" if isinstance(parameter.default, bool) else parameter.kind


def limits(parameter: Parameter) -> str:
    """The values that a parameter may have, for people.

    >>> limits(Parameter("density", "fraction to keep", low=0.0, high=1.0))
    '0 to 1'
    """
    if kind(parameter) == "boolean":
        return "true or false"
    whole = "whole number, " if kind(parameter) == "integer" else ""
    low, high = (abs(bound) != float("inf") for bound in (parameter.low, parameter.high))
    bounds = {
        (True, True): f"{parameter.low:g} to {parameter.high:g}",
        (True, False): f"{parameter.low:g} or more",
        (False, True): f"{parameter.high:g} or less",
        (False, False): "any",
    }
    return whole + bounds[low, high]


def default(parameter: Parameter) -> str:
    """A parameter's default as recipes write it; 'required' where there is none."""
    value = parameter.default
    return "required" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:g}"


def render(entries: Iterable[Entry]) -> str:
    """The reference in Markdown: a table of all ``entries``, then one section each, grouped by taxon."""
    entries = list(entries)
    return "\n".join([_INTRODUCTION, *_table(entries), *_sections(entries)])


def _table(entries: list[Entry]) -> Iterator[str]:
    yield "| method | group | survey | review | models | base | in span | random | data |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for entry in entries:
        cells = [f"[{entry.name}](#{entry.name})", entry.taxon, entry.survey, entry.review]
        cells += [entry.counts, entry.base, entry.in_span]
        cells += ["yes" if entry.random else "no", "yes" if entry.data else "no"]
        yield _row(cells)


def _sections(entries: list[Entry]) -> Iterator[str]:
    for taxon, heading in HEADINGS.items():
        group = [entry for entry in entries if entry.taxon == taxon]
        if group:
            yield f"\n## {heading}"
        for entry in group:
            yield f"\n### {entry.name}\n\n{entry.summary}"
            if entry.formula:
                yield f"\n```\n{entry.formula}\n```"
            if entry.parameters:
                yield "\n| parameter | default | values | by model | meaning |\n| --- | --- | --- | --- | --- |"
            for parameter in entry.parameters:
                by_model = "yes" if parameter.per_model else "no"
                yield _row([f"`{parameter.name}`", default(parameter), limits(parameter), by_model, parameter.help])
            facts = (("Needs", entry.data), ("Reference", entry.reference))
            yield from (f"\n{label}: {text}." for label, text in facts if text)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _parameter(parameter: Parameter) -> dict[str, Any]:
    bounds = {"low": parameter.low, "high": parameter.high}
    return {
        "name": parameter.name,
        "kind": kind(parameter),
        "default": parameter.default,
        "required": parameter.default is None,
        "per_model": parameter.per_model,
        **{name: None if abs(bound) == float("inf") else bound for name, bound in bounds.items()},
        "help": parameter.help,
    }


def own() -> list[Entry]:
    """The methods of this package, whatever else is installed: what docs/methods.md is about."""
    return [entry for entry in catalogue() if entry.module.startswith("merging.")]


if __name__ == "__main__":
    sys.stdout.write(render(own()) + "\n")
