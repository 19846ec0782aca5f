"""A table extended by a row is the table of all models, read at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.measures.alignment import Alignment
from kinship.measures.gram import GramTable, gram_table
from kinship.measures.gram_row import GramRow

MakeModel = Callable[..., Path]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def extended(models: list[Checkpoint], new: Checkpoint, step: int, backwards: bool = False) -> GramTable:
    """By ``new``, in pieces of ``step`` elements."""
    names = tuple(new.tensors)
    row = GramRow(gram_table(models[0], models[1:], Alignment(names)), models)
    pieces = [(name, *block) for name in names for block in new.blocks(name, step)]
    for name, start, count in pieces[:: -1 if backwards else 1]:
        dtype = new.tensors[name].dtype
        row.add(name, start * dtype.itemsize, new.stored(name, start, count), dtype)
    return row.table(new.id)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_table_of_all(make_model: MakeModel, dtype: torch.dtype, stored: torch.dtype) -> None:
    base = make_model("base", dtype=dtype)
    paths = [base, *(make_model(f"m{seed}", seed=seed, base=base, dtype=dtype) for seed in (1, 2, 3))]
    models = [open_checkpoint(path) for path in paths]
    new = open_checkpoint(make_model("new", seed=4, base=base, dtype=stored))
    table, want = extended(models, new, 1000), gram_table(models[0], [*models[1:], new], Alignment(tuple(new.tensors)))
    assert (table.rows, table.names) == (want.rows, want.names)
    norms = np.sqrt(np.diagonal(want.grams, axis1=1, axis2=2))
    assert (np.abs(table.grams - want.grams) <= 3e-7 * norms[:, :, None] * norms[:, None, :]).all()
    np.testing.assert_allclose(table.sums, want.sums, atol=1e-4 * norms.max())
    np.testing.assert_array_equal(table.counts, want.counts)
    np.testing.assert_array_equal(table.grams, table.grams.transpose(0, 2, 1))


def test_order_of_pieces_does_not_show(make_model: MakeModel) -> None:
    base = make_model("base")
    models = [open_checkpoint(path) for path in (base, make_model("one", seed=1, base=base))]
    new = open_checkpoint(make_model("new", seed=2, base=base))
    one, other = (extended(models, new, 700, backwards) for backwards in (False, True))
    np.testing.assert_array_equal(one.grams, other.grams)
    np.testing.assert_array_equal(one.sums, other.sums)


def test_distances_of_close_models_keep_their_digits(make_model: MakeModel) -> None:
    base = make_model("base")
    one = make_model("one", seed=1, base=base, size=1.0)
    new = open_checkpoint(make_model("new", seed=2, base=one, size=1e-5))
    models = [open_checkpoint(path) for path in (base, one)]
    table = extended(models, new, 5000)
    for index, name in enumerate(table.names):
        gram = table.grams[index]
        want = float((models[1].tensor(name).double() - new.tensor(name)).square().sum())
        assert gram[1, 1] + gram[2, 2] - 2 * gram[1, 2] == pytest.approx(want, rel=1e-4)
