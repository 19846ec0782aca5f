"""Documents of a task into its splits, with what every task must have."""

from collections.abc import Sequence
from typing import Any

from evaluators.settings import EvaluateSettings
from evaluators.splits import Split, split_documents
from kinship.errors import InvalidConfig


def splits_of(
    task: str, documents: Sequence[Any], settings: EvaluateSettings, limit: int | None
) -> dict[Split, list[int]]:
    """Indices of the documents of each split; raises `InvalidConfig` where one has too few for an error."""
    splits = split_documents(documents, settings.search_fraction, limit, settings.split_seed)
    for split, ids in splits.items():
        if len(ids) < 2:
            raise InvalidConfig(f"Task {task} has too few documents for its {split} split: {len(ids)}.")
    return splits
