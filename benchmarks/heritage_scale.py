"""How far `kinship tree --recover` scales: simulated families of tens to hundreds of models, time and memory by stage.

    python benchmarks/heritage_scale.py [--models 50 100 200 500] [--layers 16] [--hidden 64] [--folder KEEP]

Each count is recovered twice, in a process of its own: from the files alone, and with an index that remembers sketches.

Half of the models are one family, the rest two smaller ones and a tenth that are nobody's relatives, all of one
architecture. Members are fine-tunes (of all tensors, of half of the layers, by adapters), linear merges of two or
three, casts and copies. Fine-tunes are random steps, which is enough for time and memory and says nothing about how
right recovery is on trained networks: for that see heritage.py. What is told of families, copies and merges is checked.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["KINSHIP_CACHE"] = "off"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from safetensors.numpy import load_file, save_file

State = dict[str, np.ndarray]
# Of all models, by family; the rest are alone.
SHARES = (0.5, 0.25, 0.15)
KINDS = {"finetune": 0.5, "lora": 0.15, "frozen": 0.12, "linear": 0.13, "cast": 0.05, "duplicate": 0.05}


@dataclass(frozen=True)
class Member:
    """One model and how it was made; ``family`` is -1 for those that are alone."""

    name: str
    family: int
    kind: str
    parents: tuple[str, ...] = ()


def shapes(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Of a Llama, tied: nine tensors a layer and two."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (4 * hidden, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(layers):
        place = f"model.layers.{layer}"
        for part, rows in (("q", hidden), ("k", hidden // 2), ("v", hidden // 2), ("o", hidden)):
            found[f"{place}.self_attn.{part}_proj.weight"] = (rows, hidden)
        found[f"{place}.mlp.gate_proj.weight"] = found[f"{place}.mlp.up_proj.weight"] = (5 * hidden // 2, hidden)
        found[f"{place}.mlp.down_proj.weight"] = (hidden, 5 * hidden // 2)
        found[f"{place}.input_layernorm.weight"] = found[f"{place}.post_attention_layernorm.weight"] = (hidden,)
    return found


def initial(sizes: dict[str, tuple[int, ...]], random: np.random.Generator) -> State:
    return {
        name: 0.05 * random.standard_normal(size, dtype=np.float32) if len(size) > 1 else np.ones(size, np.float32)
        for name, size in sizes.items()
    }


def trained(state: State, kind: str, random: np.random.Generator) -> State:
    """After a random step of 1 to 10 % of a matrix's norm, partly along few directions; adapters only along those."""
    size = float(np.exp(random.uniform(np.log(0.01), np.log(0.1))))
    layers = 1 + max(int(name.split(".")[2]) for name in state if ".layers." in name)
    found = dict(state)
    for name, tensor in state.items():
        layer = int(name.split(".")[2]) if ".layers." in name else layers
        if kind == "frozen" and (layer < layers // 2 or ".layers." not in name):
            continue
        if tensor.ndim < 2:
            found[name] = (
                tensor
                if kind == "lora"
                else tensor + np.float32(0.1 * size) * random.standard_normal(tensor.shape, np.float32)
            )
            continue
        if kind == "lora" and "_proj" not in name:
            continue
        rank = 4
        few = random.standard_normal((tensor.shape[0], rank), np.float32) @ random.standard_normal(
            (rank, tensor.shape[1]), np.float32
        )
        step = few / np.float32(rank**0.5)
        if kind != "lora":
            step = step * np.float32(0.7) + np.float32(0.7) * random.standard_normal(tensor.shape, np.float32)
        found[name] = tensor + step * np.float32(size * np.linalg.norm(tensor) / np.linalg.norm(step))
    return found


def rounded(state: State) -> State:
    return {name: tensor.astype(np.float16) for name, tensor in state.items()}


def grow(count: int, folder: Path, layers: int, hidden: int) -> list[Member]:
    """``count`` models as files in ``folder``, unless they are there, in an order that tells nothing."""
    known = folder / "truth.json"
    if known.exists():
        return [Member(**entry | {"parents": tuple(entry["parents"])}) for entry in json.loads(known.read_text())]
    folder.mkdir(parents=True, exist_ok=True)
    random, sizes = np.random.default_rng(count), shapes(layers, hidden)
    names = [f"m{number}" for number in random.permutation(9000)[:count] + 1000]
    members: list[Member] = []

    def add(member: Member, state: State) -> None:
        members.append(member)
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in state.items()},
            folder / f"{member.name}.safetensors",
        )

    for family, share in enumerate(SHARES):
        plain: list[str] = []
        for _ in range(max(2, int(share * count))):
            name = names.pop()
            kind = "base" if not plain else str(random.choice(list(KINDS), p=list(KINDS.values())))
            if kind == "linear" and len(plain) < 4:
                kind = "finetune"
            if kind == "base":
                add(Member(name, family, kind), initial(sizes, random))
            elif kind == "linear":
                parents = [str(one) for one in random.choice(plain, int(random.integers(2, 4)), replace=False)]
                weights = (
                    np.full(len(parents), 1 / len(parents)) if random.random() < 0.5 else _weights(len(parents), random)
                )
                states = [load_file(folder / f"{one}.safetensors") for one in parents]
                merged = {
                    key: sum(
                        float(w) * state[key].astype(np.float64) for w, state in zip(weights, states, strict=True)
                    ).astype(np.float32)
                    for key in sizes
                }
                add(Member(name, family, kind, tuple(parents)), merged)
            else:
                parent = plain[0] if random.random() < 0.4 else str(random.choice(plain))
                state = load_file(folder / f"{parent}.safetensors")
                made = (
                    rounded(state) if kind == "cast" else state if kind == "duplicate" else trained(state, kind, random)
                )
                add(Member(name, family, kind, (parent,)), made)
            if kind not in ("cast", "duplicate", "linear"):
                plain.append(name)
    while names:
        add(Member(names.pop(), -1, "base"), initial(sizes, random))
    members = [members[int(place)] for place in random.permutation(len(members))]
    known.write_text(json.dumps([vars(member) for member in members]))
    return members


def _weights(count: int, random: np.random.Generator) -> np.ndarray:
    parts = random.uniform(0.2, 1.0, count)
    weights = np.round(parts / parts.sum(), 2)
    weights[-1] = 1 - weights[:-1].sum()
    return weights


def recovered(folder: Path, index: Path | None) -> None:
    """Recover, and print as JSON what it cost by stage and how it compares with the truth."""
    from kinship.heritage import recover

    members = [Member(**entry) for entry in json.loads((folder / "truth.json").read_text())]
    paths = {str(folder / f"{member.name}.safetensors"): member for member in members}
    costs: dict[str, list[float]] = {}
    now = ["Starting", time.perf_counter(), time.process_time()]

    def tell(stage: str, done: int, total: int, unit: str) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        spent = costs.setdefault(str(now[0]), [0.0, 0.0])
        spent[0] += wall - float(now[1])
        spent[1] += cpu - float(now[2])
        now[:] = [stage if done < total else f"after: {stage}", wall, cpu]

    tell("Opening models", 0, 1, "")
    heritage = recover(list(paths), progress=tell, index=index)
    tell("", 1, 1, "")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    family = {node.id: node.family for node in heritage.nodes}
    groups: dict[int, set[int]] = {}
    for id, number in family.items():
        groups.setdefault(number, set()).add(paths[id].family)
    homes = {number: {family[id] for id, one in paths.items() if one.family == number} for number in range(len(SHARES))}
    told: dict[str, set[str]] = {}
    for edge in heritage.edges:
        told.setdefault(edge.child, set()).add(edge.parent)
    by_name = {member.name: id for id, member in paths.items()}
    merges = [(id, {by_name[one] for one in member.parents}) for id, member in paths.items() if member.kind == "linear"]
    copies = [(by_name[member.parents[0]], id) for id, member in paths.items() if member.kind in ("cast", "duplicate")]
    near = {
        frozenset(pair)
        for edge in heritage.edges
        if edge.kind in ("cast", "duplicate")
        for pair in [(edge.parent, edge.child)]
    }
    print(json.dumps({
        "wall": sum(cost[0] for cost in costs.values()),
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss / 1024,
        "stages": costs,
        "families_right": all(len(one) == 1 for one in (*homes.values(), *groups.values())),
        "merges": [sum(told.get(id) == parents for id, parents in merges), len(merges)],
        "copies": [sum(frozenset(pair) in near for pair in copies), len(copies)],
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="Keep the families here, and take up those that are here.")
    parser.add_argument("--recover", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.recover:
        recovered(asked.recover, asked.index)
        return
    with tempfile.TemporaryDirectory() as scratch:
        for count in asked.models:
            folder = (asked.folder or Path(scratch)) / str(count)
            grow(count, folder, asked.layers, asked.hidden)
            index = Path(scratch) / f"{count}.sqlite"
            for case, options in (
                ("files alone", []),
                ("index made", ["--index", index]),
                ("index known", ["--index", index]),
            ):
                words = [sys.executable, __file__, "--recover", folder, *options]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                print(report(f"{count} models, {case}", json.loads(done.stdout)), flush=True)


def report(case: str, found: dict) -> str:
    merges, copies = ("{} of {}".format(*found[key]) for key in ("merges", "copies"))
    families = "right" if found["families_right"] else "WRONG"
    lines = [
        f"{case}: {found['wall']:.1f} s, CPU {found['cpu']:.1f} s, peak {found['peak']:.0f} MB; "
        f"families {families}, parents of merges right {merges}, of copies {copies}"
    ]
    lines += [f"  {stage:28} {wall:7.1f} s  CPU {cpu:7.1f} s" for stage, (wall, cpu) in found["stages"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
