import os
import subprocess
import sys
from itertools import pairwise

import pytest

from evaluators.splits import SPLITS, content_hash, split_documents

DOCUMENTS = [{"question": f"what is {number} + 1?", "answer": number + 1} for number in range(2000)]


def test_splits_are_disjoint_and_cover_everything() -> None:
    splits = split_documents(DOCUMENTS)
    assert sorted(splits["search"] + splits["held_out"]) == list(range(2000))
    assert all(splits[split] == sorted(splits[split]) for split in SPLITS)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
def test_the_search_split_has_about_its_fraction(fraction: float) -> None:
    count = len(split_documents(DOCUMENTS, fraction)["search"])
    assert count == pytest.approx(2000 * fraction, abs=4.5 * (2000 * fraction * (1 - fraction)) ** 0.5)


def test_equal_documents_never_straddle_and_other_documents_do_not_matter() -> None:
    repeated = DOCUMENTS + DOCUMENTS[:500]
    splits = split_documents(repeated)
    assert {index - 2000 for index in splits["search"] if index >= 2000} == {i for i in splits["search"] if i < 500}
    shifted = split_documents([{"question": "one more"}, *DOCUMENTS])["search"]
    assert [index - 1 for index in shifted if index > 0] == split_documents(DOCUMENTS)["search"]


def test_keys_in_another_order_are_the_same_document() -> None:
    turned = [dict(reversed(document.items())) for document in DOCUMENTS]
    assert split_documents(turned) == split_documents(DOCUMENTS)


@pytest.mark.parametrize("split", SPLITS)
def test_a_larger_limit_only_adds(split: str) -> None:
    limited = [split_documents(DOCUMENTS, limit=limit)[split] for limit in (5, 50, 500, None)]  # type: ignore[index]
    assert [len(ids) for ids in limited[:3]] == [5, 50, 500]
    assert all(set(few) < set(more) for few, more in pairwise(limited))


def test_the_seed_changes_the_splits() -> None:
    assert split_documents(DOCUMENTS, seed=1) != split_documents(DOCUMENTS, seed=2)
    assert content_hash("a", 1) != content_hash("a", 2)


def test_splits_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from evaluators.splits import split_documents; print(split_documents([{'a': i, 'b': [i]} for i in range(9)]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
