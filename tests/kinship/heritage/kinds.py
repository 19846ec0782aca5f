"""Families of other kinds than `growth` has: recurrent, other transformers, small steps and large, overfit, frozen.

What confidences are calibrated on beside those; every kind is left out in turn. Descent is a star with a branch or two,
as most real families are; some kinds are checkpoints of one run.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.kinship.heritage.growth import Grown, Language, Member
from tests.kinship.heritage.recipes import State

VOCABULARY = 64


class Recurrent(nn.Module):
    """Embedding, LSTM or GRU, head: after textgenrnn."""

    def __init__(self, cell: str = "LSTM", width: int = 24, hidden: int = 48, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.rnn = getattr(nn, cell)(width, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.rnn(self.embedding(tokens))[0])


class Transformer(nn.Module):
    """Learned positions, layer norms, biases, GELU: after GPT-2; head tied or not."""

    def __init__(self, hidden: int = 40, layers: int = 3, tied: bool = True) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, hidden), nn.Embedding(16, hidden)
        self.h = nn.ModuleList(
            nn.TransformerEncoderLayer(hidden, 4, 4 * hidden, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.ln_f = nn.LayerNorm(hidden)
        self.head = None if tied else nn.Linear(hidden, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.wte(tokens) + self.wpe(torch.arange(length))
        for block in self.h:
            x = block(x, torch.full((length, length), -torch.inf).triu(1), is_causal=True)
        return self.ln_f(x) @ (self.wte if self.head is None else self.head).weight.T


@dataclass(frozen=True)
class Kind:
    """How the members of a family are trained. steps, rate: ranges. frozen: parts of names that stay.

    same: how often two runs are on one data set. few: batches there are, 0 for ever new ones. chain: how often the
    parent is the latest member. run: checkpoints of one training, on the base's own data.
    """

    name: str
    build: Callable[[], nn.Module]
    steps: tuple[int, int]
    rate: tuple[float, float]
    decay: float = 0.0
    frozen: tuple[str, ...] = ()
    same: float = 0.0
    few: int = 0
    chain: float = 0.15
    run: bool = False
    optimiser: str = "AdamW"


KINDS = (
    Kind("recurrent, small steps", Recurrent, (20, 60), (2e-4, 2e-3)),
    Kind("recurrent, large steps", Recurrent, (150, 400), (5e-3, 2.5e-2)),
    Kind("recurrent, overfit", lambda: Recurrent("LSTM", 24, 40, 2), (200, 400), (3e-3, 1e-2), few=2),
    Kind("recurrent, embeddings frozen", Recurrent, (60, 200), (1e-3, 6e-3), frozen=("embedding",)),
    Kind("recurrent, two runs on the same data", Recurrent, (60, 200), (1e-3, 8e-3), same=0.6),
    Kind("gated, shortened", lambda: Recurrent("GRU"), (80, 200), (2e-3, 6e-3), decay=1.0, same=0.15),
    Kind("checkpoints of one run", Recurrent, (40, 120), (1e-3, 4e-3), chain=1.0, run=True),
    Kind("transformer, tied", Transformer, (30, 100), (5e-4, 4e-3), decay=0.01, same=0.15),
    Kind("transformer, large steps", lambda: Transformer(32, 2, False), (120, 250), (4e-3, 1e-2), same=0.15),
    Kind("transformer, shortened", lambda: Transformer(32, 2, False), (60, 150), (1e-3, 4e-3), decay=1.5),
    Kind("transformer, plain descent", Transformer, (40, 120), (2e-2, 1e-1), optimiser="SGD", same=0.15),
)


class Dialect(Language):
    """A `Language` of all tokens, or of most: people's texts share an alphabet."""

    def __init__(self, seed: int, home: Language | None = None, few: int = 0, mixed: float = 0.6) -> None:
        super().__init__(VOCABULARY, seed)
        if home is not None:
            self.spread = (1 - mixed**2) ** 0.5 * home.spread + mixed * self.spread
            self.table = torch.softmax(2.5 * self.spread, -1)
        self.few = [super(Dialect, self).batch() for _ in range(few)]

    def batch(self, size: int = 8, length: int = 14) -> Tensor:
        if self.few:
            return self.few[int(torch.randint(len(self.few), (1,), generator=self.generator))]
        return super().batch(size, length)


def train(model: nn.Module, kind: Kind, data: Language, steps: int, rate: float, decay: float) -> State:
    """The weights of ``model`` after so many ``steps``; it is trained in place."""
    leaves = []
    for name, leaf in model.named_parameters():
        leaf.requires_grad_(not any(part in name for part in kind.frozen))
        leaves += [leaf] if leaf.requires_grad else []
    optimiser: torch.optim.Optimizer
    if kind.optimiser == "SGD":
        optimiser = torch.optim.SGD(leaves, rate, 0.9)
    else:
        optimiser = torch.optim.AdamW(leaves, rate, weight_decay=decay, fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 5) * (1 - 0.9 * step / steps)
        tokens = data.batch()
        loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(leaves, 1.0)
        optimiser.step()
    return {name: leaf.detach().clone() for name, leaf in model.named_parameters()}


def grow_kind(kind: Kind, seed: int) -> Grown:
    """A family of 3 to 8 models, all kin; names tell nothing. Equal seeds give equal families."""
    random = np.random.default_rng([seed, KINDS.index(kind)])
    torch.manual_seed(int(random.integers(2**31)))
    model, home = kind.build(), Dialect(int(random.integers(2**31)))
    broad = Kind("base", kind.build, (0, 0), (0, 0))
    names = [f"m{number}" for number in random.permutation(900)[: int(random.integers(3, 9))] + 100]
    grown = Grown([Member(names[0], "base")], {})
    grown.states[names[0]] = train(model, broad, home, int(random.integers(300, 500)), 5e-3, 0.01)
    tasks: list[Language] = []
    for name in names[1:]:
        earlier = [member.name for member in grown.members]
        latest = random.random() < kind.chain
        parent = earlier[-1] if latest else earlier[0]
        if kind.run:
            tasks = [home]
        elif not tasks or random.random() > kind.same:
            tasks.append(Dialect(int(random.integers(2**31)), home, kind.few, float(random.uniform(0.3, 0.9))))
        steps = int(random.integers(*kind.steps))
        rate = float(np.exp(random.uniform(*np.log(kind.rate))))
        task = tasks[-1] if random.random() > kind.same else tasks[int(random.integers(len(tasks)))]
        model.load_state_dict(grown.states[parent])
        grown.states[name] = train(model, kind, task, steps, rate, kind.decay)
        grown.members.append(Member(name, "finetune", (parent,), {"steps": steps, "rate": round(rate, 6)}))
    return grown


def grow_or_load_kind(kind: Kind, seed: int, folder: Path) -> Grown:
    """As `grow_or_load` of `growth`."""
    known = folder / "truth.json"
    if known.exists():
        entries = json.loads(known.read_text())
        return Grown([Member(e["name"], e["kind"], tuple(e["parents"]), e["detail"], e["base"]) for e in entries], {})
    grown = grow_kind(kind, seed)
    grown.save(folder)
    known.write_text(json.dumps([vars(member) for member in grown.members], indent=1))
    return grown
