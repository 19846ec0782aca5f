"""Log-likelihoods of continuations under a causal model, in batches that are made once and asked of every candidate.

What lm-eval's ``HFLM._loglikelihood_tokens`` does, with gathers from slices of a batch in place of a loop over
requests. Order, batches and padding are lm-eval's: the forward passes are the same, and likelihoods equal its own to
the last bit.
Where prefixes are shared (`evaluators.lm_eval.prefixes`), they equal its own but for rounding.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

KEPT_BYTES = 200_000_000
HALF = -0.69  # log p of a token beyond which no other can be as likely
PADDING = -1  # in place of a branch
SLICE = {"cpu": 1 << 20}  # logits whose softmax is taken at a time: on the CPU as many as stay in its cache
LARGEST_SLICE = 1 << 28

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of its continuation."""


@dataclass(frozen=True)
class Batch:
    """One forward pass and what is read from it.

    ids: (rows, length) int64, padded on the right with 0.
    places: (n,) int64, ascending: the places in (rows * length) whose logits are read, each once.
    entries: (m,) int64, which of ``places`` predicts each of ``tokens``: continuations that differ in their last token
        alone share them.
    tokens: (m,) int64, the tokens of all continuations.
    heads: (m,) int64, which of ``tokens`` begins the continuation that each belongs to.
    branches: (rows, length) int64, where several continuations follow one context: see `evaluators.lm_eval.prefixes`.
    """

    ids: Tensor
    places: Tensor
    entries: Tensor
    tokens: Tensor
    heads: Tensor
    branches: Tensor | None = None


@dataclass(frozen=True)
class Row:
    """Tokens of one row; of each request in it the places there that predict its tokens; branches: of each token."""

    tokens: Sequence[int]
    asked: Sequence[tuple[int, Sequence[int]]]
    branches: Sequence[int] | None = None


@dataclass(frozen=True)
class Prepared:
    """Batches, and by length of continuation: requests (r,) and where their tokens come in all batches (r, length)."""

    batches: list[Batch]
    spans: list[tuple[list[int], Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        parts = [part for batch in self.batches for part in vars(batch).values() if part is not None]
        return sum(tensor.nbytes for tensor in [*parts, *(where for _, where in self.spans)])


def prepare(pairs: Sequence[Pair], batch_size: int, max_length: int, together: Sequence[Row] = ()) -> Prepared:
    """Batches on the CPU for ``pairs``: the longest first, cut on the left to the last ``max_length`` tokens of input.

    Requires contexts and continuations of at least one token, continuations of at most ``max_length``. Pairs whose
    tokens differ in nothing but the last share a row. lm-eval does so too, but reads the wrong logits for the shorter
    of two continuations that share one; here each pair has what it has when it is asked alone. together: rows that hold
    some of the pairs already, the longest first, in batches of their own.
    """
    apart = set(range(len(pairs))) - {index for row in together for index, _ in row.asked}
    rows = _rows({index: pairs[index] for index in sorted(apart)}, max_length)
    batches: list[Batch] = []
    starts: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by length: request, its first token in all batches
    count = 0
    for kind in (rows, together):
        for first in range(0, len(kind), batch_size):
            batch = _batch(kind[first : first + batch_size], pairs)
            batches.append(batch)
            place = count
            for row in kind[first : first + batch_size]:
                for index, places in row.asked:
                    starts[len(places)].append((index, place))
                    place += len(places)
            count = place
    spans = [
        ([index for index, _ in found], torch.tensor([[start] for _, start in found]) + torch.arange(length))
        for length, found in starts.items()
    ]
    return Prepared(batches, spans)


def _rows(pairs: Mapping[int, Pair], max_length: int) -> list[Row]:
    """Rows of ``pairs`` by request, each context with one continuation, the longest first."""
    sharing: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (context, continuation) in pairs.items():
        sharing[*context, *continuation[:-1]].append(index)
    rows = []
    for inputs in sorted(sharing, key=lambda inputs: (-len(inputs), inputs)):
        end = len(kept := inputs[-max_length:])
        asked = [(index, range(end - len(pairs[index][1]), end)) for index in sharing[inputs]]
        rows.append(Row(kept, asked))
    return rows


def _batch(rows: Sequence[Row], pairs: Sequence[Pair]) -> Batch:
    length = len(rows[0].tokens)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    branches = None if rows[0].branches is None else torch.full_like(ids, PADDING)
    places: list[int] = []
    tokens: list[int] = []
    heads: list[int] = []
    for number, row in enumerate(rows):
        ids[number, : len(row.tokens)] = torch.tensor(row.tokens)
        if branches is not None:
            branches[number, : len(row.tokens)] = torch.tensor(row.branches)
        for index, found in row.asked:
            continuation = pairs[index][1]
            places.extend(number * length + place for place in found)
            heads.extend([len(tokens)] * len(continuation))
            tokens.extend(continuation)
    read, entries = torch.unique(torch.tensor(places), return_inverse=True)
    return Batch(ids, read, entries, torch.tensor(tokens), torch.tensor(heads), branches)


def score(
    prepared: Prepared, logits: Callable[..., Tensor], device: torch.device, dtype: torch.dtype | None = None
) -> list[tuple[float, bool]]:
    """Of each pair: log p(continuation | context), and whether a greedy generation would give it.

    ``logits``: of token ids (rows, length), and of branches where there are any, to (rows, length, vocabulary);
    ``dtype`` of the softmax, default: theirs.
    Cost beyond ``logits``: a softmax of those that are read, in slices. CPU and CUDA; the latter is untested.
    """
    likelihoods, greedy = [torch.zeros(0, device=device)], [torch.zeros(0, dtype=torch.bool, device=device)]
    for batch in prepared.batches:
        branches = () if batch.branches is None else (batch.branches.to(device),)
        of_tokens, likeliest = _read(logits(batch.ids.to(device), *branches).flatten(0, 1), batch, dtype)
        likelihoods.append(of_tokens)
        greedy.append(likeliest)
    every_likelihood, every_greedy = torch.cat(likelihoods), torch.cat(greedy)
    answers: dict[int, tuple[float, bool]] = {}
    for requests, where in prepared.spans:
        # Continuations of one length together: the sum of a padded row would round in another order.
        sums = every_likelihood[where.to(device)].sum(-1).tolist()
        answers.update(
            zip(requests, zip(sums, every_greedy[where.to(device)].all(-1).tolist(), strict=True), strict=True)
        )
    return [answers[index] for index in range(len(answers))]


def _read(logits: Tensor, batch: Batch, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Of all tokens (m,) of a ``batch``: log p, and whether a greedy generation takes them, as far as those before in
    their continuation are taken; from ``logits`` (rows * length, vocabulary).
    """
    device = logits.device
    places, entries, tokens = batch.places.to(device), batch.entries.to(device), batch.tokens.to(device)
    step = max(1, SLICE.get(device.type, LARGEST_SLICE) // logits.shape[1])

    def log_p(rows: Tensor | slice) -> Tensor:
        return functional.log_softmax(logits.index_select(0, places[rows]), dim=-1, dtype=dtype)

    of_tokens = torch.empty(len(tokens), dtype=dtype or logits.dtype, device=device)
    likeliest = torch.empty(len(tokens), dtype=torch.bool, device=device)
    for first in range(0, len(places), step):
        where = (entries // step == first // step).nonzero().squeeze(1)
        found, mine = log_p(slice(first, first + step)), entries[where] - first
        of_tokens[where] = found[mine, tokens[where]]
        likeliest[where] = of_tokens[where] == found.amax(-1)[mine]
    # Which of equally likely tokens a greedy generation takes, argmax tells: it takes longer than the softmax.
    tied = (likeliest & (of_tokens < HALF) & likeliest[batch.heads.to(device)]).nonzero().squeeze(1)
    likeliest[tied] = log_p(entries[tied]).argmax(-1) == tokens[tied]
    return of_tokens, likeliest


class Kept:
    """The batches used last, by what was asked, up to `KEPT_BYTES` of tensors in all; what is larger is made anew."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._known: OrderedDict[Hashable, Prepared] = OrderedDict()
        self._nbytes = 0

    def get(self, asked: Hashable) -> Prepared | None:
        """The batches for what was asked, if they are kept."""
        if asked in self._known:
            self._known.move_to_end(asked)
        return self._known.get(asked)

    def put(self, asked: Hashable, prepared: Prepared) -> None:
        """Keep ``prepared``, and forget the batches that have not been used for longest where the limit asks for it."""
        if prepared.nbytes > self._limit:
            return
        self._known[asked] = prepared
        self._nbytes += prepared.nbytes
        while self._nbytes > self._limit:
            self._nbytes -= self._known.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._nbytes = 0
