"""What ``--force`` may replace: folders that this program wrote, nothing else in them, that nobody is working in."""

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from kinship.checkpoints.references import local_places
from merging.output.folder import foreign_in_model
from search.config import RunConfig
from search.ledger.location import holds_run, require_idle

# What a run leaves in its folder, and a demo in its own.
_RUN = (
    "ledger.sqlite*", "ledger.json", ".ledger*", ".lock", ".started", "run.yml", "export.json", "children",
    "best-offspring", "best-offspring.yml", "kinship.csv", "kinship.png", "lineage.png", "lineage.svg",
    "report.html", ".*.partial", ".*.retired",
)  # fmt: skip
_DEMO = ("family", "kinship.csv", "kinship.png", "kinship.svg", "scores.sqlite*", "report.html", "run-*")


def foreign_in_run(folder: Path) -> str | None:
    """What in ``folder`` no search has put there; raises `LedgerError` where one is going on."""
    if not holds_run(folder) and not (folder / ".lock").is_file():
        return _first(folder, ())
    require_idle(folder)
    child = _first(folder / "children", ("*.safetensors*",))
    return _first(folder, _RUN) or _inside(folder, "best-offspring") or (child and f"children/{child}")


def foreign_in_demo(folder: Path) -> str | None:
    """What in ``folder`` no demo has put there; raises `LedgerError` where one of its searches is going on."""
    if not (folder / "family" / "family.json").is_file():
        return _first(folder, ())
    runs = sorted(place for place in folder.glob("run-*") if place.is_dir())
    found = {run.name: foreign_in_run(run) for run in runs}
    return _first(folder, _DEMO) or next((f"{name}/{what}" for name, what in found.items() if what), None)


def inputs_of_run(config: RunConfig, root: Path) -> list[Path]:
    """The files and folders on this machine that a run reads."""
    evaluate = config.evaluate
    texts = [text.file for text in evaluate.perplexity]
    return local_places([*config.references.values(), *texts, *filter(None, [evaluate.task_path])], root)


def _first(folder: Path, ours: Iterable[str]) -> str | None:
    """The first entry of ``folder``, where there is one, whose name is none of ``ours``."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    patterns = list(ours)
    return next((name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)), None)


def _inside(folder: Path, name: str) -> str | None:
    found = foreign_in_model(folder / name) if (folder / name).is_dir() else None
    return found and f"{name}/{found}"
