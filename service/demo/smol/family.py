"""Make a smol family in a folder: the base, its founders as LoRA adapters, and the tasks; what is there is kept."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from kinship.errors import OutputExists
from kinship.output import output_file, output_folder
from service.demo.family import RECORD, Family, one_quiet_thread
from service.demo.smol.base import require_packages, write_base
from service.demo.smol.deals import Founder, SmolSettings
from service.demo.smol.phenomena import PREFIX, lessons, write_tasks

FORMAT = 1  # raise it when the same settings come to give other models
Progress = Callable[[str, int, int], None]


def make_smol_family(
    folder: Path, settings: SmolSettings, progress: Progress | None = None, base: Path | None = None
) -> Family:
    """Make the family of `settings` in ``folder``, or go on where it was stopped; each model is there whole or not.

    Args:
        folder: of the family; made by this call, or by an earlier one of the same settings.
        settings: what to make.
        progress: called as ``progress(label, step, total)`` through all optimiser steps of the family.
        base: the model folder of an earlier family's base, to be used in place of one of its own.

    Cost: 50 CPU seconds for the base and some 2 a step, on one thread. Raises `OutputExists` where `folder` holds
    anything else, and as `service.demo.smol.base.require_packages` where the base is still to be made.
    """
    told = progress or (lambda label, step, total: None)
    family = Family(
        folder=folder,
        base=base or folder / "base",
        founders=tuple(folder / founder.name for founder in settings.founders),
        tasks=folder / "tasks",
        task_names=tuple(f"{PREFIX}{name}" for name in settings.asked),
        adapters=True,
    )
    if not family.base.exists():
        require_packages()  # before anything is made
    _begin(folder, settings)
    if not family.base.exists():
        told("base", 0, _steps(settings.founders))
        with one_quiet_thread():
            write_base(family.base)
    if not family.tasks.exists():
        with output_folder(family.tasks) as partial:
            partial.rmdir()
            write_tasks(partial, settings.asked, settings.documents, settings.seed)
    with one_quiet_thread():
        _train(family, settings, told)
    return family


def texts_asked(family: Family) -> frozenset[str]:
    """The beginnings of all documents of the family's tasks, which nobody may be trained on."""
    files = sorted(family.tasks.glob("*.jsonl"))
    documents = (json.loads(line) for file in files for line in file.read_text("utf-8").splitlines())
    return frozenset(document.get("beginning", document["text"]) for document in documents)


def _begin(folder: Path, settings: SmolSettings) -> None:
    """Write down what is made in ``folder``, or see that it is what was begun there."""
    description = json.dumps({"format": FORMAT, "kind": "smol"} | asdict(settings), indent=2) + "\n"
    record = folder / RECORD
    if record.is_file() and record.read_text(encoding="utf-8") == description:
        return
    if folder.exists() and any(folder.iterdir()):
        raise OutputExists(f"{folder} exists and holds another family.", hint="Choose another folder, or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    with output_file(record) as partial:
        partial.write_text(description, encoding="utf-8")


def _train(family: Family, settings: SmolSettings, told: Progress) -> None:
    from service.demo.smol.training import train_adapter

    done, total = 0, _steps(settings.founders)
    excluded = texts_asked(family)

    def step() -> None:
        nonlocal done
        done += 1
        told(founder.name, done, total)

    for founder, folder in zip(settings.founders, family.founders, strict=True):
        if folder.exists():
            done += founder.steps
            continue
        told(founder.name, done, total)
        rng = random.Random(f"{founder.name}/{settings.seed}")
        drawn = lessons(founder.learns, founder.unlearns, rng, excluded)
        with output_folder(folder) as partial:
            train_adapter(family.base, partial, drawn, settings, founder, step)


def _steps(founders: tuple[Founder, ...]) -> int:
    return sum(founder.steps for founder in founders)
