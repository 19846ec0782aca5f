"""Families of small Llamas with known descent: really trained, merged, cast and quantised, to recover from weights.

Nothing here uses the code under test: merges are written out in plain torch.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from tests.kinship.heritage.recipes import State, linear, quantise, slerp, task_arithmetic, ties


@dataclass(frozen=True)
class Shape:
    """Of a Llama: RMS norms, rotary positions, grouped queries, SwiGLU; names as Hugging Face has them."""

    vocabulary: int = 48
    hidden: int = 32
    inner: int = 72
    layers: int = 2
    heads: int = 4
    key_heads: int = 2
    tied: bool = False

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        narrow = self.hidden // self.heads * self.key_heads
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            place = f"model.layers.{layer}"
            for name, rows in (("q", self.hidden), ("k", narrow), ("v", narrow), ("o", self.hidden)):
                found[f"{place}.self_attn.{name}_proj.weight"] = (rows, self.hidden)
            found[f"{place}.mlp.gate_proj.weight"] = (self.inner, self.hidden)
            found[f"{place}.mlp.up_proj.weight"] = (self.inner, self.hidden)
            found[f"{place}.mlp.down_proj.weight"] = (self.hidden, self.inner)
            found[f"{place}.input_layernorm.weight"] = (self.hidden,)
            found[f"{place}.post_attention_layernorm.weight"] = (self.hidden,)
        found["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            found["lm_head.weight"] = (self.vocabulary, self.hidden)
        return found


# That of stories260K, a small Llama trained on children's stories.
STORY = Shape(512, 64, 172, 5, 8, 4, True)


def pretrained(path: Path) -> State:
    """Weights of a trained model of shape `STORY`, to `grow` from."""
    weights = load_file(path)
    return {name: weights[name].float() for name in STORY.tensors}


def initial(shape: Shape, generator: torch.Generator) -> State:
    return {
        name: torch.ones(size) if len(size) == 1 else 0.05 * torch.randn(size, generator=generator)
        for name, size in shape.tensors.items()
    }


def logits(state: Mapping[str, Tensor], tokens: Tensor, shape: Shape) -> Tensor:
    """(batch, length, vocabulary) for ``tokens`` (batch, length)."""
    batch, length = tokens.shape
    width = shape.hidden // shape.heads
    angles = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(0, width, 2) / width))
    cos, sin = torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()

    def norm(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * state[name]

    def heads(x: Tensor, name: str, count: int) -> Tensor:
        return (x @ state[name].T).view(batch, length, count, width).transpose(1, 2)

    def turn(x: Tensor) -> Tensor:
        return x * cos + torch.cat([-x[..., width // 2 :], x[..., : width // 2]], -1) * sin

    x = state["model.embed_tokens.weight"][tokens]
    for layer in range(shape.layers):
        place = f"model.layers.{layer}"
        seen = norm(x, f"{place}.input_layernorm.weight")
        q = turn(heads(seen, f"{place}.self_attn.q_proj.weight", shape.heads))
        k = turn(heads(seen, f"{place}.self_attn.k_proj.weight", shape.key_heads))
        v = heads(seen, f"{place}.self_attn.v_proj.weight", shape.key_heads)
        k, v = (part.repeat_interleave(shape.heads // shape.key_heads, 1) for part in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.transpose(1, 2).reshape(batch, length, -1) @ state[f"{place}.self_attn.o_proj.weight"].T
        seen = norm(x, f"{place}.post_attention_layernorm.weight")
        gate = functional.silu(seen @ state[f"{place}.mlp.gate_proj.weight"].T)
        x = x + (gate * (seen @ state[f"{place}.mlp.up_proj.weight"].T)) @ state[f"{place}.mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ state["model.embed_tokens.weight" if shape.tied else "lm_head.weight"].T


class Language:
    """Sequences of a Markov chain, a table of next tokens that a network can learn.

    With ``home``, a task: a dialect of it that uses half of the tokens, as a domain has words of its own. Else tasks
    would undo each other, and a second fine-tune go back on the first, which those of real models hardly do.
    """

    def __init__(self, vocabulary: int, seed: int, home: "Language | None" = None) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        own = torch.randn(vocabulary, vocabulary, generator=self.generator)
        self.spread = own if home is None else 0.8 * home.spread + 0.6 * own
        used = vocabulary if home is None else vocabulary // 2
        self.used = torch.randperm(vocabulary, generator=self.generator)[:used]
        unused = torch.ones(vocabulary, dtype=torch.bool)
        unused[self.used] = False
        self.table = torch.softmax((2.5 * self.spread).masked_fill(unused, -torch.inf), -1)

    def batch(self, size: int = 8, length: int = 14) -> Tensor:
        tokens = [self.used[torch.randint(len(self.used), (size,), generator=self.generator)]]
        for _ in range(length):
            tokens.append(torch.multinomial(self.table[tokens[-1]], 1, generator=self.generator)[:, 0])
        return torch.stack(tokens, 1)


def train(
    state: State,
    shape: Shape,
    language: Language,
    steps: int,
    rate: float,
    decay: float = 0.0,
    trained: Callable[[str], bool] = lambda name: True,
    rank: int = 0,
    generator: torch.Generator | None = None,
) -> State:
    """``state`` after ``steps`` of AdamW on ``language``; with ``rank`` by LoRA of the ``trained`` matrices."""
    names = [name for name in state if trained(name) and (not rank or state[name].dim() == 2)]
    if rank:
        sides = {}
        for name in names:
            rows, columns = state[name].shape
            sides[name] = (torch.zeros(rows, rank), torch.randn(rank, columns, generator=generator) / columns**0.5)
        leaves = [side.requires_grad_() for pair in sides.values() for side in pair]
    else:
        whole = {name: state[name].clone().requires_grad_() for name in names}
        leaves = list(whole.values())
    optimiser = torch.optim.AdamW(leaves, rate, weight_decay=decay, betas=(0.9, 0.95), fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 5) * (1 - 0.9 * step / steps)
        now = state | ({n: state[n] + b @ a for n, (b, a) in sides.items()} if rank else whole)
        tokens = language.batch()
        scores = logits(now, tokens[:, :-1], shape)
        loss = functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimiser.step()
    changed = {n: state[n] + b @ a for n, (b, a) in sides.items()} if rank else whole
    return state | {name: tensor.detach().clone() for name, tensor in changed.items()}


@dataclass(frozen=True)
class Member:
    """One model of a family. ``parents``: those it was made from; ``base``: whose task vectors a merge took."""

    name: str
    kind: str
    parents: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
    base: str | None = None


@dataclass
class Grown:
    """A family with its truth; members without parents are roots: the base and the outsiders."""

    members: list[Member]
    states: dict[str, State]

    def save(self, folder: Path, withheld: frozenset[str] = frozenset()) -> list[Path]:
        """One ``.safetensors`` file a model, named so that names tell nothing; in the order of `members`."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for member in self.members:
            if member.name not in withheld:
                paths.append(folder / f"{member.name}.safetensors")
                save_file({k: v.contiguous() for k, v in self.states[member.name].items()}, paths[-1])
        return paths

    def depth(self, name: str) -> int:
        member = next(member for member in self.members if member.name == name)
        return 1 + max(map(self.depth, member.parents)) if member.parents else 0


KINDS = {
    "finetune": 0.33, "frozen": 0.11, "lora": 0.13, "linear": 0.09, "slerp": 0.06, "task_arithmetic": 0.07,
    "ties": 0.06, "cast": 0.05, "quantized": 0.05, "duplicate": 0.025, "resized": 0.025,
}  # fmt: skip


# How often a fine-tune is on data that another of its family was trained on: most people bring their own.
REPEATED = 0.15


def grow(seed: int, size: int | None = None, start: State | None = None, shape: Shape | None = None) -> Grown:
    """A random family of ``size`` models (8-25), outsiders included, at least three generations deep.

    ``start``: the weights of a trained base; by default one is trained here. Equal seeds give equal families.
    """
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    shape = shape or Shape()
    size = size or int(random.integers(8, 26))
    outsiders = int(random.integers(1, 3))
    home = Language(shape.vocabulary, 10_000 + seed)
    if start is not None:  # tasks are dialects of what it was trained on, as far as it tells
        with torch.no_grad():
            home.spread = logits(start, torch.arange(shape.vocabulary)[:, None], shape)[:, 0] / 2.5
    tasks: list[Language] = []
    base = start or train(initial(shape, generator), shape, home, int(random.integers(250, 350)), 5e-3, 0.01)
    numbers = random.permutation(900)[:size] + 100
    names = [f"m{number}" for number in numbers]
    grown = Grown([Member(names[0], "base")], {names[0]: base})
    for name in names[1 : 1 + outsiders]:
        grown.states[name] = train(initial(shape, generator), shape, home, int(random.integers(80, 120)), 5e-3, 0.01)
        grown.members.append(Member(name, "outsider"))
    kin = [names[0]]
    odds = np.array(list(KINDS.values())) / sum(KINDS.values())
    kinds = ["finetune"] * 3 + random.choice(list(KINDS), p=odds, size=max(0, size - 4)).tolist()
    for index, name in enumerate(names[1 + outsiders :]):
        member, state = _child(name, str(kinds[index]), index, kin, grown, shape, tasks, home, random, generator)
        grown.members.append(member)
        grown.states[name] = state
        kin.append(name)
    return grown


def _child(
    name: str, kind: str, index: int, kin: list[str], grown: Grown, shape: Shape, tasks: list[Language],
    home: Language, random: np.random.Generator, generator: torch.Generator,
) -> tuple[Member, State]:  # fmt: skip
    kinds = {member.name: member.kind for member in grown.members}
    whole = [one for one in kin if kinds[one] not in ("quantized", "resized")]
    plain = [one for one in whole if kinds[one] not in ("cast", "duplicate")]
    states = {one: {key: tensor.float() for key, tensor in grown.states[one].items()} for one in kin}
    if kind in ("linear", "slerp", "task_arithmetic", "ties"):
        count = 2 if kind == "slerp" else int(random.integers(2, 4))
        away = [one for one in plain if kind in ("linear", "slerp") or one != kin[0]]
        if len(away) >= count:
            parents = tuple(map(str, random.choice(away, count, replace=False)))
            merged = [states[one] for one in parents]
            if kind == "linear":
                weights = _weights(count, random)
                return Member(name, kind, parents, {"weights": weights}), linear(merged, weights)
            if kind == "slerp":
                ends = [float(value) for value in np.round(random.uniform(0.15, 0.85, 2), 2)]
                ends = ends if random.random() < 0.5 else [ends[0]] * 2
                t = lambda key: _gradient(key, ends, shape.layers)  # noqa: E731
                return Member(name, kind, parents, {"t": ends}), slerp(*merged, t)
            base = _common(grown, parents)
            if base not in parents:
                scale = float(np.round(random.uniform(0.4, 1.2), 1))
                if kind == "task_arithmetic":
                    weights = [float(value) for value in np.round(random.uniform(0.3, 1.0, count), 1)]
                    made = task_arithmetic(states[base], merged, weights, scale)
                    return Member(name, kind, parents, {"weights": weights, "lambda": scale}, base), made
                density, scale = float(np.round(random.uniform(0.2, 0.8), 1)), 1.0 if random.random() < 0.6 else scale
                made = ties(states[base], merged, [1.0] * count, density, scale)
                return Member(name, kind, parents, {"density": density, "lambda": scale}, base), made
        kind = "finetune"
    if kind in ("cast", "quantized", "duplicate", "resized"):
        parent = str(random.choice(plain))
        state = states[parent]
        if kind == "cast":
            dtype = [torch.bfloat16, torch.float16][int(random.integers(2))]
            back = torch.float32 if random.random() < 0.3 else dtype
            state = {key: tensor.to(dtype).to(back) for key, tensor in state.items()}
            return Member(name, kind, (parent,), {"dtype": str(dtype)}), state
        if kind == "quantized":
            bits, layout = int(random.choice([4, 8])), str(random.choice(["row", "tensor", "group"]))
            return Member(name, kind, (parent,), {"bits": bits, "layout": layout}), quantise(state, bits, layout)
        if kind == "resized":
            rows = int(random.integers(1, 9))
            grown_state = {
                key: torch.cat([tensor, 0.02 * torch.randn(rows, tensor.shape[1], generator=generator)])
                if "embed" in key or "lm_head" in key
                else tensor.clone()
                for key, tensor in state.items()
            }
            return Member(name, kind, (parent,), {"rows": rows}), grown_state
        return Member(name, kind, (parent,)), {key: tensor.clone() for key, tensor in state.items()}
    # The first three make a chain, so that every family is three generations deep.
    parent = kin[-1] if index < 3 else str(random.choice(whole))
    steps, rate = int(random.integers(10, 36)), float(np.exp(random.uniform(np.log(4e-4), np.log(2e-3))))
    decay = float(random.choice([0.0, 0.01, 0.1]))
    if not tasks or random.random() > REPEATED:
        tasks.append(Language(shape.vocabulary, int(random.integers(2**31)), home))
        task = len(tasks) - 1
    else:
        task = int(random.integers(len(tasks)))
    detail: dict[str, Any] = {"steps": steps, "rate": round(rate, 6), "task": task}
    if kind == "lora":
        rank = int(random.choice([1, 2, 4]))
        chosen = ("q_proj", "v_proj") if random.random() < 0.5 else ("_proj",)
        state = train(
            states[parent], shape, tasks[task], steps, 5 * rate, 0.0,
            lambda key: any(part in key for part in chosen), rank, generator,
        )  # fmt: skip
        return Member(name, kind, (parent,), detail | {"rank": rank}), state
    if kind == "frozen":
        frozen = [("embed_tokens",), ("layers.0.",), ("embed_tokens", "layers.0."), ("mlp",)][int(random.integers(4))]
        state = train(
            states[parent], shape, tasks[task], steps, rate, decay, lambda key: not any(part in key for part in frozen)
        )
        return Member(name, kind, (parent,), detail | {"frozen": frozen}), state
    return Member(name, "finetune", (parent,), detail), train(states[parent], shape, tasks[task], steps, rate, decay)


def _weights(count: int, random: np.random.Generator) -> list[float]:
    parts = random.uniform(0.2, 1.0, count)
    rounded = np.round(parts / parts.sum(), 2)
    rounded[-1] = round(1 - rounded[:-1].sum(), 2)
    return [float(value) for value in rounded]


def _gradient(key: str, ends: list[float], layers: int) -> float:
    """From the first layer's value to the last's; outside the layers the first's."""
    parts = key.split(".")
    place = int(parts[2]) / max(1, layers - 1) if "layers" in parts else 0.0
    return ends[0] + (ends[1] - ends[0]) * place


def _common(grown: Grown, names: tuple[str, ...]) -> str:
    """The youngest common ancestor."""
    parents = {member.name: member.parents for member in grown.members}

    def line(name: str) -> set[str]:
        return {name}.union(*map(line, parents[name]))

    shared = set.intersection(*map(line, names))
    return max(shared, key=lambda one: (grown.depth(one), one))


def grow_or_load(
    seed: int,
    folder: Path,
    start: Callable[[], State] | None = None,
    shape: Shape | None = None,
    size: int | None = None,
) -> Grown:
    """The family of ``seed``, its files in ``folder``; if they are there already, its members without their weights.

    ``start`` makes the base, where that is not to be grown; ``size`` and ``shape`` are those of `grow`.
    """
    known = folder / "truth.json"
    if known.exists():
        entries = json.loads(known.read_text())
        return Grown([Member(e["name"], e["kind"], tuple(e["parents"]), e["detail"], e["base"]) for e in entries], {})
    grown = grow(seed, size, start() if start else None, shape)
    grown.save(folder)
    known.write_text(json.dumps([vars(member) for member in grown.members], indent=1, default=str))
    return grown
