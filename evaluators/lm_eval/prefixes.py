"""One pass over a context for all its continuations: multiple choice asks four or more of one question.

A row holds the context, then each continuation as a branch that sees the context and itself, at the places where it
would stand alone. So likelihoods are those of continuations asked one by one but for rounding, while the context, most
of the tokens, is run once.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evaluators.lm_eval.likelihoods import PADDING, Pair, Row
from kinship.errors import UnsupportedCheckpoint

WORTH = 0.8  # of the tokens at most so many are left where a context is shared: BLiMP's, of one token, is not
NEAR = {torch.float32: 1e-3}  # log-likelihoods that are equal but for rounding; in 16 bits `ROUGH`
ROUGH = 0.25


def shared_rows(pairs: Sequence[Pair], longest: int) -> list[Row]:
    """Rows of one context and all its continuations, the longest first: of those contexts where that spares tokens
    (`WORTH`) and fits into ``longest``. Continuations that differ in nothing but the last token share their branch.
    """
    contexts: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (context, _) in enumerate(pairs):
        contexts[tuple(context)].append(index)
    rows = []
    for context, indices in contexts.items():
        tokens, branches = list(context), [0] * len(context)
        begins: dict[tuple[int, ...], int] = {}
        asked = []
        for index in indices:
            inputs = tuple(pairs[index][1][:-1])
            if inputs not in begins:
                begins[inputs] = len(tokens)
                tokens += inputs
                branches += [len(begins)] * len(inputs)
            begin = begins[inputs]
            asked.append((index, [len(context) - 1, *range(begin, begin + len(inputs))]))
        apart = len(tokens) + (len(begins) - 1) * len(context)
        if len(tokens) <= min(longest, WORTH * apart):
            rows.append(Row(tokens, asked, branches))
    return sorted(rows, key=lambda row: (-len(row.tokens), tuple(row.tokens)))


def positions(branches: Tensor) -> Tensor:
    """Where each token stands in the text that it is of, (rows, length) int64: a branch goes on where the context ends.

    >>> positions(torch.tensor([[0, 0, 1, 1, 2, PADDING]]))
    tensor([[0, 1, 2, 3, 2, 0]])
    """
    places = torch.arange(branches.shape[1], device=branches.device)
    context = (branches == 0).sum(dim=1, keepdim=True)
    first = torch.ones_like(branches, dtype=torch.bool)
    first[:, 1:] = branches[:, 1:] != branches[:, :-1]
    begins = (places * first).cummax(dim=1).values
    found = places - begins + torch.where(branches > 0, context, 0)
    return torch.where(branches == PADDING, 0, found)


def mask(branches: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention, (rows, 1, length, length): 0 where a token sees another one, else the least number.

    A token sees those before it, and itself, in the context and in its own branch.
    """
    rows, length = branches.shape
    own = (branches[:, :, None] == branches[:, None, :]) | (branches == 0)[:, None, :]
    seen = own & torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
    hidden = torch.full((rows, 1, length, length), torch.finfo(dtype).min, dtype=dtype, device=branches.device)
    return hidden.masked_fill_(seen[:, None], 0.0)


@torch.no_grad()
def branched(model: Any, ids: Tensor, branches: Tensor) -> Tensor:
    """Logits (rows, length, vocabulary) of rows of branches. Memory: a mask of rows x length x length beside."""
    found: Tensor = model(
        input_ids=ids, attention_mask=mask(branches, model.dtype), position_ids=positions(branches), use_cache=False
    ).logits
    return found


def longest_shared(config: Any, max_length: int) -> int:
    """Rows of at most so many tokens see the whole of themselves: windows of attention are no part of `mask`."""
    text = config.get_text_config()
    windows: list[int | None] = [getattr(text, key, None) for key in ("sliding_window", "attention_chunk_size")]
    return min([max_length, *(window for window in windows if window)])


@torch.no_grad()
def require_branching(model: Any, name: str) -> None:
    """Raise `UnsupportedCheckpoint` unless ``model`` takes masks and positions as transformers of attention alone do:
    two continuations of one context in a row have to have the logits that they have one by one.
    """
    draw = torch.Generator().manual_seed(1)
    size = model.config.get_text_config().vocab_size
    context, *ends = (torch.randint(1, size, (count,), generator=draw) for count in (5, 3, 4))
    row = torch.cat([context, *ends])[None].to(model.device)
    branches = torch.tensor([[0] * 5 + [1] * 3 + [2] * 4], device=model.device)
    try:
        together = branched(model, row, branches)[0].float().log_softmax(-1)
        alone = [model(torch.cat([context, end])[None].to(model.device)).logits[0].float() for end in ends]
        apart = torch.cat([alone[0].log_softmax(-1), alone[1].log_softmax(-1)[5:]])
        difference = float((together - apart).abs().max())
    except (TypeError, ValueError, RuntimeError) as error:  # of what the architecture makes of the mask
        raise _refusal(name, f"{type(error).__name__}: {error}") from error
    if not difference <= NEAR.get(model.dtype, ROUGH):
        raise _refusal(name, f"log-likelihoods differ by {difference:.2g}")


def _refusal(name: str, why: str) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"The architecture of {name} cannot answer several continuations of a context in one row ({why}).",
        hint="Leave out evaluate.share_prefixes.",
    )
