import datetime
import os
import subprocess
import sys
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluators.scores.splits import SPLITS, content_hash, split_documents
from kinship.errors import InvalidConfig

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


def test_what_json_has_no_form_for_counts_by_its_content() -> None:
    """Text of arrays leaves out their middle, text of objects tells where they lie."""
    one, other = np.arange(5000.0), np.arange(5000.0)
    other[2500] = 0.5
    for make in (np.array, torch.tensor, lambda values: values.tobytes(), lambda values: {*values.tolist()}):
        assert content_hash({"x": make(one)}) == content_hash({"x": make(one.copy())})
        assert content_hash({"x": make(one)}) != content_hash({"x": make(other)})
    assert content_hash({1, "a"}) == content_hash({"a", 1})
    assert content_hash(datetime.date(2024, 1, 1)) == content_hash("2024-01-01")
    with pytest.raises(InvalidConfig, match="A document holds a object"):
        content_hash([object()])


def test_splits_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from evaluators.scores.splits import split_documents\n"
        "print(split_documents([{'a': i, 'b': [i]} for i in range(9)]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


CONTENTS = st.lists(
    st.one_of(
        st.text(max_size=3), st.integers(0, 5), st.dictionaries(st.text(max_size=1), st.integers(0, 3), max_size=2)
    ),
    max_size=16,
)


@given(CONTENTS, st.floats(0.05, 0.95), st.integers(0, 9), st.one_of(st.none(), st.integers(0, 8)))
def test_no_document_is_in_both_splits(documents: list[object], fraction: float, seed: int, limit: int | None) -> None:
    splits = split_documents(documents, fraction, limit, seed)
    assert not set(splits["search"]) & set(splits["held_out"])
    contents = [{content_hash(documents[index]) for index in splits[split]} for split in SPLITS]
    assert not contents[0] & contents[1]  # nor under another index
    if limit is None:
        assert sorted(splits["search"] + splits["held_out"]) == list(range(len(documents)))


@given(CONTENTS, st.integers(0, 9), st.lists(st.integers(0, 20), min_size=2, max_size=5))
def test_limits_grow_monotonically(documents: list[object], seed: int, limits: list[int]) -> None:
    whole = split_documents(documents, seed=seed)
    grown = [split_documents(documents, limit=limit, seed=seed) for limit in sorted(limits)]
    for split in SPLITS:
        assert [len(splits[split]) for splits in grown] == [min(n, len(whole[split])) for n in sorted(limits)]
        for few, more in pairwise([*grown, whole]):
            assert set(few[split]) <= set(more[split])


@given(CONTENTS, st.randoms())
def test_the_order_of_the_documents_does_not_matter(documents: list[object], random: Random) -> None:
    order = list(range(len(documents)))
    random.shuffle(order)
    splits, shuffled = split_documents(documents), split_documents([documents[index] for index in order])
    for split in SPLITS:
        assert sorted(order[index] for index in shuffled[split]) == splits[split]


def test_a_fraction_of_1_holds_nothing_out() -> None:
    assert split_documents(DOCUMENTS, 1) == {"search": list(range(2000)), "held_out": []}
