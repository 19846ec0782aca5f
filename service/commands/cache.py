"""`kinship cache`."""

import re
import time
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from evaluators.cache import Entry, ScoreCache, default_path
from kinship.errors import InvalidConfig, ReferenceNotFound
from service.console import console, print_json

SECONDS = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def list_entries(path: Path | None, *, as_json: bool) -> None:
    """Print what is kept, the most recently used first."""
    from rich.filesize import decimal
    from rich.table import Table

    cache = _existing(path)
    entries = cache.entries()[::-1]
    if as_json:
        print_json({"schema": "kinship.cache/1", "path": str(cache.path), "entries": [_describe(e) for e in entries]})
        return
    table = Table("model", "task", "metric", "documents", "size", "last used", title=str(cache.path))
    for entry in entries:
        name, used = entry.model or entry.key[:12], datetime.fromtimestamp(entry.used).date().isoformat()
        table.add_row(name, entry.task, entry.metric, f"{entry.count:,}", decimal(entry.nbytes), used)
    console().print(table)


def size(path: Path | None, *, as_json: bool) -> None:
    """Print how much is kept."""
    from rich.filesize import decimal

    cache = _existing(path)
    entries, nbytes = cache.entries(), cache.path.stat().st_size
    documents = sum(entry.count for entry in entries)
    if as_json:
        facts = {"path": str(cache.path), "bytes": nbytes, "entries": len(entries), "documents": documents}
        print_json({"schema": "kinship.cache-size/1", **facts})
        return
    console().print(
        f"{cache.path}: {decimal(nbytes)}, {documents:,} results in {len(entries):,} entries", soft_wrap=True
    )


def prune(
    path: Path | None,
    *,
    older_than: str | None,
    max_size: str | None,
    model: str | None,
    task: str | None,
    broken: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove the entries that are meant by all that is asked for."""
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
    if as_json:
        facts = {"path": str(cache.path), "dry_run": dry_run, "removed": [_describe(entry) for entry in chosen]}
        print_json({"schema": "kinship.cache-prune/1", **facts, "kept": len(entries) - len(chosen)})
        return
    verb = "would be removed" if dry_run else "removed"
    console().print(f"{len(chosen):,} entries {verb}, {len(entries) - len(chosen):,} kept.", soft_wrap=True)


def verify(path: Path | None, *, as_json: bool) -> bool:
    """Read everything back, print what is wrong, and tell whether all is well."""
    cache = _existing(path)
    damage = cache.damage()
    entries = cache.entries() if damage is None else []
    problems = [(entry, problem) for entry in entries if (problem := cache.problem(entry))]
    sound = damage is None and not problems
    if as_json:
        found = [_describe(entry) | {"problem": problem} for entry, problem in problems]
        facts = {"path": str(cache.path), "ok": sound, "entries": len(entries), "damage": damage, "problems": found}
        print_json({"schema": "kinship.cache-verify/1", **facts})
        return sound
    if damage is not None:
        console().print(f"{cache.path} is damaged: {damage}\nDelete it; what it held will be scored again.")
    for entry, problem in problems:
        console().print(f"{entry.model or entry.key[:12]} on {entry.task}: {problem}", soft_wrap=True, markup=False)
    if problems:
        console().print("Remove these by `kinship cache prune --broken`.")
    if sound:
        console().print(f"All {len(entries):,} entries are sound.")
    return sound


def _existing(path: Path | None) -> ScoreCache:
    path = path or default_path()
    if path is None:
        raise ReferenceNotFound("KINSHIP_CACHE=off: no scores are kept.", hint="Name a file by --cache.")
    if not path.is_file():
        raise ReferenceNotFound(f"There is no score cache at {path} yet.", hint="Scoring makes it; or give --cache.")
    return ScoreCache(path)


def _describe(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "model": entry.model or None,
        "task": entry.task or None,
        "metric": entry.metric or None,
        "documents": entry.count,
        "bytes": entry.nbytes,
        "used": entry.used,
    }


def _until_it_fits(entries: list[Entry], total: float, most: float) -> list[Entry]:
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
