"""The scores that are kept: what there is, how much, what was removed, whether it is whole."""

import re
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kinship.errors import InvalidConfig, ReferenceNotFound
from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from evaluators.cache import Entry, ScoreCache

SECONDS = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


class CachedScore(Part):
    """What is kept of one model on one task under one set of settings."""

    key: str
    """Its identity."""
    model: str | None
    """As it was called when it was first scored."""
    task: str | None
    """Its name."""
    metric: str | None
    """Of the task."""
    documents: int
    """How many have a result."""
    bytes: int
    """About what it takes in the file."""
    used: float
    """Last, in seconds since 1970, to the day."""


class CacheProblem(CachedScore):
    """Something kept that cannot be used."""

    problem: str
    """What is wrong with it."""


class CacheList(Answer):
    """What is kept."""

    schema_: Literal["kinship.cache/1"] = named("kinship.cache/1")
    path: str
    """The file."""
    entries: list[CachedScore]
    """The most recently used first."""


class CacheSize(Answer):
    """How much is kept."""

    schema_: Literal["kinship.cache-size/1"] = named("kinship.cache-size/1")
    path: str
    """The file."""
    bytes: int
    """Of the file."""
    entries: int
    """How many."""
    documents: int
    """How many results, over all entries."""


class CachePrune(Answer):
    """What was removed, or would be."""

    schema_: Literal["kinship.cache-prune/1"] = named("kinship.cache-prune/1")
    path: str
    """The file."""
    dry_run: bool
    """Whether nothing was removed."""
    removed: list[CachedScore]
    """The entries meant."""
    kept: int
    """How many others."""


class CacheChecks(Answer):
    """Whether everything kept is whole and finite."""

    schema_: Literal["kinship.cache-verify/1"] = named("kinship.cache-verify/1")
    path: str
    """The file."""
    ok: bool
    """False where something is wrong; the command then ends with exit code 1."""
    entries: int
    """How many were read."""
    damage: str | None
    """What is wrong with the file itself."""
    problems: list[CacheProblem]
    """Entries that cannot be used."""


def list_cache(path: Path | None = None) -> CacheList:
    """What is kept in the cache at ``path``, by default the user's own; raises `ReferenceNotFound` without one."""
    cache = _existing(path)
    return CacheList(path=str(cache.path), entries=_described(cache.entries()[::-1]))


def measure_cache(path: Path | None = None) -> CacheSize:
    """How much is kept; raises `ReferenceNotFound` where there is no cache."""
    cache = _existing(path)
    entries = cache.entries()
    documents = sum(entry.count for entry in entries)
    size = cache.path.stat().st_size
    return CacheSize(path=str(cache.path), bytes=size, entries=len(entries), documents=documents)


def prune_cache(
    path: Path | None = None,
    *,
    older_than: str | None = None,
    max_size: str | None = None,
    model: str | None = None,
    task: str | None = None,
    broken: bool = False,
    dry_run: bool = False,
) -> CachePrune:
    """Remove the entries that are meant by all that is asked for; see the options of ``kinship cache prune``.

    Raises `InvalidConfig` where nothing, or nonsense, is asked for, and `ReferenceNotFound` where there is no cache.
    """
    if not (older_than or max_size or model or task or broken):
        raise InvalidConfig(
            "Nothing says what to remove.",
            hint="Give --older-than, --max-size, --model, --task or --broken; to remove all, delete the file.",
        )
    before = time.time() - (_quantity(older_than, SECONDS) if older_than else 0.0)
    most = _quantity(max_size, BYTES) if max_size else None
    cache = _existing(path)
    entries = cache.entries()
    chosen = [
        entry
        for entry in entries
        if (not older_than or entry.used < before)
        and fnmatchcase(entry.model, model or "*")
        and fnmatchcase(entry.task, task or "*")
        and (not broken or cache.problem(entry))
    ]
    if most is not None:
        chosen = _until_it_fits(chosen, sum(entry.nbytes for entry in entries), most)
    if chosen and not dry_run:
        cache.remove(chosen)
    kept = len(entries) - len(chosen)
    return CachePrune(path=str(cache.path), dry_run=dry_run, removed=_described(chosen), kept=kept)


def check_cache(path: Path | None = None) -> CacheChecks:
    """Read everything back; raises `ReferenceNotFound` where there is no cache, `CacheError` where none can be read."""
    cache = _existing(path, mend=False)
    damage = cache.damage()
    entries = cache.entries() if damage is None else []
    problems = [(entry, problem) for entry in entries if (problem := cache.problem(entry))]
    return CacheChecks(
        path=str(cache.path),
        ok=damage is None and not problems,
        entries=len(entries),
        damage=damage,
        problems=[CacheProblem(**_facts(entry), problem=problem) for entry, problem in problems],
    )


def _existing(path: Path | None, *, mend: bool = True) -> "ScoreCache":
    from evaluators.cache import ScoreCache, default_path

    path = path or default_path()
    if path is None:
        raise ReferenceNotFound("KINSHIP_CACHE=off: no scores are kept.", hint="Name a file by --cache.")
    if not path.is_file():
        raise ReferenceNotFound(f"There is no score cache at {path} yet.", hint="Scoring makes it; or give --cache.")
    return ScoreCache(path, mend=mend)


def _described(entries: "Sequence[Entry]") -> list[CachedScore]:
    return [CachedScore(**_facts(entry)) for entry in entries]


def _facts(entry: "Entry") -> dict[str, Any]:
    return {
        "key": entry.key,
        "model": entry.model or None,
        "task": entry.task or None,
        "metric": entry.metric or None,
        "documents": entry.count,
        "bytes": entry.nbytes,
        "used": entry.used,
    }


def _until_it_fits(entries: "list[Entry]", total: float, most: float) -> "list[Entry]":
    """The least recently used of ``entries`` whose removal brings ``total`` bytes down to ``most``."""
    chosen = []
    for entry in entries:
        if total <= most:
            break
        chosen.append(entry)
        total -= entry.nbytes
    return chosen


def _quantity(text: str, units: dict[str, float]) -> float:
    """A number with a unit, as in ``30d``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    if not found or found[2] not in units:
        raise InvalidConfig(
            f"{text!r} is no number with a unit.", hint=f"Units: {', '.join(units)}, as in 30{[*units][1]}."
        )
    return float(found[1]) * units[found[2]]
