"""Kinship of LoRA adapters: from their factors against the dense pass over the adapted weights, in one run.

    python benchmarks/lora_kinship.py           a 1.1B Llama in bf16 with 4 adapters of rank 16
    python benchmarks/lora_kinship.py --quick   the same at 127M

Dense: `gram_table` over the base and the adapted models, whose changes are multiplied out block by block as they are
read. Both sides open the base and the adapters themselves, and take turns; medians. Page cache warm.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from kinship_speed import SIZES, make, shapes, timed
from safetensors.torch import save_file

from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.measures.adapters import adapter_gram_table
from kinship.measures.alignment import align
from kinship.measures.gram import GramTable, gram_table
from kinship.threads import worker_count

Use = Callable[[Checkpoint, list[AdaptedCheckpoint]], GramTable]

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_adapters(folder: Path, size: str, count: int, rank: int) -> list[Path]:
    """Adapters of random factors on all projections, half of each shared, so that they are related."""
    paths = []
    for index in range(count):
        shared, own = torch.Generator().manual_seed(99), torch.Generator().manual_seed(index)
        tensors = {}
        for name, shape in shapes(**SIZES[size]).items():
            module = name.removesuffix(".weight")
            if module.endswith(TARGETS):
                for side, factor in {"A": (rank, shape[1]), "B": (shape[0], rank)}.items():
                    noise = torch.randn(factor, generator=shared) + torch.randn(factor, generator=own)
                    tensors[f"base_model.model.{module}.lora_{side}.weight"] = 0.01 * noise
        path = folder / f"adapter-{index}"
        path.mkdir()
        save_file(tensors, path / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
        (path / "adapter_config.json").write_text(json.dumps(config))
        paths.append(path)
    return paths


def with_models(
    base: Path, adapters: list[Path], use: Callable[[Checkpoint, list[AdaptedCheckpoint]], GramTable]
) -> GramTable:
    """Open everything, as a command would, and ``use`` it."""
    with ExitStack() as stack:
        opened = stack.enter_context(open_checkpoint(base))
        models = [stack.enter_context(open_checkpoint(f"{base}+{adapter}")) for adapter in adapters]
        return use(opened, [model for model in models if isinstance(model, AdaptedCheckpoint)])


def from_factors(base: Checkpoint, models: list[AdaptedCheckpoint]) -> GramTable:
    return adapter_gram_table(base, models, align(base, models))


def dense(base: Checkpoint, models: list[AdaptedCheckpoint]) -> GramTable:
    return gram_table(base, models, align(base, models))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="127M instead of 1.1B")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args()
    size = "127M" if options.quick else "1.1B"
    folder = Path(tempfile.mkdtemp())
    try:
        if shutil.disk_usage(folder).free < 8e9:
            print("NOT MEASURED: 8 GB of disk needed")
            return
        (base,) = make(folder, size, 0)
        adapters = make_adapters(folder, size, options.adapters, options.rank)
        torch.set_num_threads(worker_count())
        tables: dict[str, GramTable] = {}
        times: dict[str, list[float]] = {"factors": [], "dense": []}
        for round in range(options.rounds + 1):  # the first warms caches and compiles
            for name, use in {"factors": from_factors, "dense": dense}.items():
                seconds = timed(lambda name=name, use=use: tables.update({name: with_models(base, adapters, use)}))
                if round:
                    times[name].append(seconds)
    finally:
        shutil.rmtree(folder)
    one, other = (tables[name].matrix("pcc").values for name in ("factors", "dense"))
    ours, theirs = (statistics.median(times[name]) for name in ("factors", "dense"))
    ratio = statistics.median(one / other for one, other in zip(times["factors"], times["dense"], strict=True))
    print(
        f"{size} bf16, {options.adapters} adapters of rank {options.rank}, {worker_count()} threads: "
        f"factors {ours:.3f} s   dense {theirs:.2f} s   ratio {100 * ratio:.2f} %   "
        f"largest difference in PCC {np.abs(one - other).max():.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
