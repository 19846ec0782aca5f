"""The searches of `kinship demo --family smol`: greedy merging, its partners, and `auto`, which weighs all founders."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.config import RunConfig, parse_config
from service.demo.family import Family
from service.demo.searches import DemoSearch

EVALUATE = {"limit": 40, "batch_size": 64}  # documents of a phenomenon in each split
EVALUATIONS = 16  # of each search: about what greedy merging takes to stop by itself


class SmolSearch(DemoSearch):
    """One of them; ``variant`` is that of Top-k greedy merging, or ``auto``."""

    def config(self, family: Family, root: Path) -> RunConfig:
        """See `DemoSearch.config`. Merges are averages, as they come."""
        greedy: dict[str, Any] = {"variant": self.variant, "partner_pool": "all"}
        return parse_config(
            {
                "base": str(family.base.relative_to(root)),
                "founders": family.references(root),
                "evaluate": {
                    "tasks": list(family.task_names),
                    "task_path": str(family.tasks.relative_to(root)),
                    **EVALUATE,
                },
                "strategy": {"name": "auto"} if self.variant == "auto" else greedy,
                "stop": {"evaluations": EVALUATIONS},
                "seed": self.seed,
            }
        )


def smol_searches(controls: int) -> Iterator[SmolSearch]:
    """All of them, the control so many times."""
    yield SmolSearch("vanilla")
    yield SmolSearch("auto")
    yield SmolSearch("kinship")
    control = SmolSearch("random")
    yield from (replace(control, seed=seed) for seed in range(controls))
