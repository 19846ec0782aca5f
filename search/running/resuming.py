"""Is the run on record the run that is asked for?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kinship.errors import LedgerError
from search.config import RunConfig
from search.ledger.ledger import RunFacts
from search.ledger.records import Record
from search.strategies.base import Proposal
from search.strategies.recipes import BASE

MAY_CHANGE = ("stop", "controls")  # of a run file, once the run was started


def require_resumable(
    run: str, facts: RunFacts, config: RunConfig, digests: Mapping[str, str], tasks: Mapping[str, Any]
) -> None:
    """Raise `LedgerError` unless ``run``, of ``facts``, can go on: by this config (`MAY_CHANGE` and ``workers`` may
    differ, and where files lie), with base and founders of these ``digests``, and with ``tasks`` of the same metrics
    and digests.
    """
    renamed = [(old, new) for old, one in facts.digests.items() for new, other in digests.items() if one == other]
    same_number = len(facts.digests) == len(digests)
    if same_number and facts.digests.keys() != digests.keys() and {old for old, _ in renamed} == facts.digests.keys():
        names = ", ".join(f"{old}: {config.references[new]}" for old, new in renamed if old != BASE)
        raise LedgerError(
            f"The run in {run} knows its founders by other names: {', '.join(facts.config.founders)}.",
            hint=f"Their weights are the same: write founders as a mapping, {{{names}}}.",
        )
    recorded, given = _without_places(facts.config), _without_places(config)
    for key in given:
        if key not in MAY_CHANGE and given[key] != recorded[key]:
            place, old, new = _difference(key, recorded[key], given[key])
            raise LedgerError(
                f"The run in {run} was started with another {place!r}: {old!r}, not {new!r}.",
                hint="Resume with the run file it was started with (stop:, controls: and workers: may change), or "
                "choose another --out.",
            )
    for id, digest in digests.items():
        if digest != facts.digests[id]:
            raise LedgerError(
                f"The weights of {id} changed since the run in {run} was started.",
                hint="Put the old weights back, or start a new run.",
            )
    for name, task in tasks.items():
        if task != facts.tasks.get(name):
            raise LedgerError(
                f"Scores of {name} would not be comparable with those in {run}: its definition, documents, or the "
                "conditions (versions, device, dtype, batch size) changed.",
                hint=f"The run was made under: {_listed(facts.conditions)}. Restore that, or start a new run.",
            )


def _difference(place: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The first setting in which two unequal parts of a config differ: its key, and what either has."""
    while isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in [*old, *new] if old.get(key) != new.get(key))
        place, old, new = f"{place}.{key}", old.get(key), new.get(key)
    return place, old, new


def _without_places(config: RunConfig) -> dict[str, Any]:
    """What a config says but for where files lie: digests tell whether those are the same."""
    content = config.to_record()
    content |= {"base": None, "founders": sorted(content["founders"])}
    texts = [text | {"file": text["name"] or Path(text["file"]).stem} for text in content["evaluate"]["perplexity"]]
    content["evaluate"] |= {"perplexity": texts, "task_path": content["evaluate"]["task_path"] and "there"}
    return content


def require_proposed(run: object, generation: int, proposals: Sequence[Proposal], recorded: Sequence[Record]) -> None:
    """Raise `LedgerError` unless the ``recorded`` individuals of a generation are of the first of the ``proposals``."""
    if len(proposals) < len(recorded) or not all(map(Record.is_of, recorded, proposals)):
        raise LedgerError(
            f"Generation {generation} in {run} is not what this program would propose.",
            hint="The run was made by another version; resume it with that, or start a new one.",
        )


def _listed(conditions: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in conditions.items()) or "conditions not on record"
