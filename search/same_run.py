"""Whether a run that is there is the one that is asked for: else its scores could not be compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinship.errors import LedgerError
from search.config import RunConfig
from search.ledger import RunFacts


def require_same_run(
    folder: Path, facts: RunFacts, config: dict[str, Any], digests: Mapping[str, str], tasks: Mapping[str, Any]
) -> None:
    """Raise `LedgerError` unless the run of ``facts`` is the one that is asked for: its config, but for ``stop``, the
    ``digests`` of base and founders, and the metric and digest of its ``tasks``.
    """
    recorded = RunConfig.model_validate(facts.config).model_dump(mode="json", exclude={"workers"})
    for key in config:
        if key != "stop" and config[key] != recorded[key]:
            raise LedgerError(
                f"The run in {folder} was started with another {key!r}: {recorded[key]}.",
                hint="Resume with the run file it was started with (stop: and workers: may change), or choose another "
                "--out.",
            )
    for id, digest in digests.items():
        if digest != facts.digests[id]:
            raise LedgerError(
                f"The weights of {id} changed since the run in {folder} was started.",
                hint="Put the old weights back, or start a new run.",
            )
    for name, task in tasks.items():
        if task != facts.tasks.get(name):
            raise LedgerError(
                f"Scores of {name} would not be comparable with those in {folder}: its definition, documents, or the "
                "conditions (versions, device, dtype, batch size) changed.",
                hint=f"The run was made under: {_listed(facts.conditions)}. Restore that, or start a new run.",
            )


def _listed(conditions: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in conditions.items()) or "conditions not on record"
