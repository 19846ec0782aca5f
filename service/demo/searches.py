"""The demo's searches over one family: greedy merging alone, with the kinship partner, and with its control."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.config import RunConfig, parse_config
from service.demo.family import Family

# Chosen on development seeds of the family, never on the seed that ships: see docs/demo.md.
MERGE: dict[str, Any] = {"method": "linear", "parameters": {"scale": 1.2}}

# The base does this at 99 %, on most seeds: nothing is left to gain, so it is practised but not scored.
MASTERED = {"demo_reverse"}


@dataclass(frozen=True)
class DemoSearch:
    """One of them. variant: of Top-k greedy merging. seed: of what is drawn, which is the control's partners."""

    variant: str
    seed: int = 0

    @property
    def label(self) -> str:
        """What it is called in the report: ``random``, ``random 2``, ..."""
        return f"{self.variant} {self.seed + 1}" if self.seed else self.variant

    @property
    def folder(self) -> str:
        """Of its run."""
        return f"run-{self.label.replace(' ', '-')}"

    def config(self, family: Family, root: Path) -> RunConfig:
        """Its run file; paths count from ``root``. Partners come from everybody, so that every variant has a choice."""
        tasks = [name for name in family.task_names if name not in MASTERED]
        return parse_config(
            {
                "base": str(family.base.relative_to(root)),
                "founders": family.references(root),
                "merge": MERGE,
                "evaluate": {"tasks": tasks, "task_path": str(family.tasks.relative_to(root)), "batch_size": 256},
                "strategy": {"variant": self.variant, "partner_pool": "all"},
                "seed": self.seed,
            }
        )


def searches(controls: int) -> Iterator[DemoSearch]:
    """All of them, the control so many times."""
    yield DemoSearch("vanilla")
    yield DemoSearch("kinship")
    control = DemoSearch("random")
    yield from (replace(control, seed=seed) for seed in range(controls))
