"""Exports of runs that never were, for lineages of any shape."""

import random
from typing import Any


def individual(id: str, generation: int, *parents: str, score: float | None = 0.5) -> dict[str, Any]:
    scores = {} if score is None else {"search": {"value": score}}
    role = "greedy" if parents else "base" if id == "base" else "founder"
    return {
        "id": id, "generation": generation, "role": role, "parents": list(parents),
        "kinship_of_parents": 0.25 if parents else None, "scores": scores,
    }  # fmt: skip


def random_export(seed: int, founders: int = 4, generations: int = 6) -> dict[str, Any]:
    """A run in which any two earlier individuals may be parents, so that many edges skip generations."""
    rng = random.Random(seed)
    individuals = [individual("base", 0), *(individual(f"founder-{i}", 0) for i in range(founders))]
    for generation in range(1, generations + 1):
        earlier = [i["id"] for i in individuals if i["id"] != "base"]
        count = rng.randint(1, 5)
        individuals += [
            individual(f"{generation}-{i}", generation, *rng.sample(earlier, 2)) for i in range(1, count + 1)
        ]
    return {"base": "base", "individuals": individuals}
