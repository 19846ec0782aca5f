"""The page of one individual of a run."""

from typing import Any
from urllib.parse import quote

import yaml
from fastapi import APIRouter
from starlette.responses import Response

from kinship.checkpoints.tensor_names import group_members
from search.ledger.ledger import Ledger
from service.http.backend import Asked
from service.http.pages.duels import rivals
from service.http.pages.rendering import page
from service.http.pages.run import name_of

router = APIRouter()


@router.get("/runs/{run}/individuals/{individual}")
def show_individual(run: str, individual: str, backend: Asked) -> Response:
    """Recipe, parents, coefficients, scores, and wins and losses against its parents."""
    found = backend.individual(run, individual)
    view = backend.view(run)
    records = view.records
    with backend.ledger(run) as ledger:
        against = rivals(ledger, records, individual)
        coefficients = coefficients_of(ledger, individual)
        failures = [one for one in backend.failures(run).failures if one.id == individual]
    recipe = backend.recipe(run, individual).to_yaml() if coefficients and found.parents else ""
    return page(
        "individual", "/", json=f"runs/{quote(run)}/individuals/{quote(individual)}",
        run=run, name=name_of(run), person=found, rivals=against, failures=failures, recipe=recipe,
        proposed=yaml.safe_dump(found.recipe, sort_keys=False) if found.recipe else "", coefficients=coefficients,
        children=[record.id for record in records if individual in record.parents], legend=view.legend,
    )  # fmt: skip


def coefficients_of(ledger: Ledger, id: str) -> dict[str, Any] | None:
    """How much of each model is in each layer, the mean over its tensors; None for who was not merged."""
    genome, facts = ledger.genomes([id]).get(id), ledger.facts()
    if genome is None or facts is None:
        return None
    table = ledger.table()
    values = genome.padded(len(table.rows)).coefficients
    layers = {label: values[members].mean(axis=0) for label, members in group_members(table.names, "layer").items()}
    return {
        "models": list(table.rows),
        "layers": list(layers),
        "values": [[float(f"{value:.6g}") for value in row] for row in layers.values()],
        "whole": [float(f"{value:.6g}") for value in values.mean(axis=0)],
    }
