"""How fast is the Gram pass, against the least that reading the weights can cost?

The floor reads all bytes by pread and widens them to fp32, with as many threads as the pass. Floor and pass alternate
in one process over a warm page cache; medians are printed. Checkpoints are made here, by a seed.

    python benchmarks/kinship_speed.py [--quick] [--work DIR]
"""

import argparse
import gc
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.measures.alignment import Alignment, align
from kinship.measures.comparison import kinship_matrix
from kinship.measures.gram import gram_table
from kinship.threads import worker_count

SIZES = {
    "127M": {"layers": 12, "hidden": 768, "inner": 3072, "kv": 768, "vocab": 18000},
    "1.1B": {"layers": 22, "hidden": 2048, "inner": 5632, "kv": 256, "vocab": 32000},
}
CASES = [("127M", 2), ("127M", 4), ("127M", 8), ("127M", 16), ("1.1B", 4)]


def shapes(layers: int, hidden: int, inner: int, kv: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """Tensors of a Llama."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "lm_head.weight": (vocab, hidden),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, shape in {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            found[f"{prefix}{name}.weight"] = shape
    return found | {"model.norm.weight": (hidden,)}


def make(folder: Path, size: str, count: int) -> list[Path]:
    """Base and ``count`` fine-tunes, bf16, made unless they are there."""
    paths = []
    for index in range(count + 1):
        path = folder / f"{size}-{index}.safetensors"
        if not path.exists():
            base_noise, own_noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(index)
            tensors = {}
            for name, shape in shapes(**SIZES[size]).items():
                tensor = torch.randn(shape, generator=base_noise).mul_(0.02)
                if index:
                    tensor.add_(torch.randn(shape, generator=own_noise), alpha=0.001)
                tensors[name] = tensor.bfloat16()
            save_file(tensors, path)
        paths.append(path)
    return paths


def floor(models: list[Checkpoint], threads: int) -> None:
    """Read every byte by pread into reused buffers and widen it to fp32."""
    chunk = 1 << 17
    jobs = [
        (entry.file, entry.offset + 2 * start, min(chunk, entry.count - start))
        for model in models
        for entry in model.tensors.values()
        for start in range(0, entry.count, chunk)
    ]
    files = {file: os.open(file, os.O_RDONLY) for file in {job[0] for job in jobs}}

    def work(part: list[tuple[Path, int, int]]) -> None:
        raw = bytearray(2 * chunk)
        narrow, wide, view = torch.frombuffer(raw, dtype=torch.bfloat16), torch.empty(chunk), memoryview(raw)
        for file, offset, count in part:
            os.preadv(files[file], [view[: 2 * count]], offset)
            wide[:count].copy_(narrow[:count])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [jobs[index::threads] for index in range(threads)]))
    for descriptor in files.values():
        os.close(descriptor)


def reference(paths: list[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PCC, cosine and Euclidean distance in float64 throughout, read by the safetensors library."""
    size = len(paths) - 1
    gram, sums, count = np.zeros((size, size)), np.zeros(size), 0
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in paths]
        for name in list(files[0].keys()):
            tensors = [file.get_tensor(name).flatten() for file in files]
            for start in range(0, len(tensors[0]), 1 << 22):
                rows = np.stack([tensor[start : start + (1 << 22)].double().numpy() for tensor in tensors])
                deltas = rows[1:] - rows[0]
                gram += deltas @ deltas.T
                sums += deltas.sum(axis=1)
                count += deltas.shape[1]
    squares = np.diag(gram)
    centred = gram - np.outer(sums, sums) / count
    spread = np.sqrt(np.diag(centred))
    return (
        centred / np.outer(spread, spread),
        gram / np.sqrt(np.outer(squares, squares)),
        np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0)),
    )


def accuracy(folder: Path, size: str, count: int) -> None:
    paths = make(folder, size, count)
    wanted = reference(paths)
    off = ~np.eye(count, dtype=bool)
    for metric, want in zip(("pcc", "cosine", "euclidean"), wanted, strict=True):
        found = kinship_matrix(paths[1:], paths[0], metric).values
        relative = metric == "euclidean"
        error = (np.abs(found - want)[off] / (want[off] if relative else 1.0)).max()
        kind = "relative" if relative else "absolute"
        print(f"{size:>5} base+{count:<3} {metric:9} largest {kind} error against float64: {error:.1e}", flush=True)


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def memory_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak since `forget_peak`) of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(folder: Path, size: str, count: int, rounds: int) -> None:
    paths = [folder / f"{size}-{index}.safetensors" for index in range(count + 1)]
    threads = worker_count()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        models = [stack.enter_context(open_checkpoint(path)) for path in paths]
        alignment = align(models[0], models[1:])
        total = sum(entry.nbytes for model in models for entry in model.tensors.values())
        floor(models, threads)  # warm the cache
        gram_table(models[0], models[1:], Alignment(alignment.names[-1:]))  # load the compiled kernel
        gc.collect()
        forget_peak()
        before = memory_mb("VmRSS")
        floors, passes = [], []
        for _ in range(rounds):
            floors.append(timed(lambda: floor(models, threads)))
            passes.append(timed(lambda: gram_table(models[0], models[1:], alignment)))
    ratio = statistics.median(one / other for one, other in zip(passes, floors, strict=True))
    base, ours = statistics.median(floors), statistics.median(passes)
    print(
        f"{size:>5} base+{count:<3} {total / 1e9:7.2f} GB   floor {base:6.2f} s   pass {ours:6.2f} s   "
        f"ratio {ratio:5.2f}   {total / 1e9 / ours:5.2f} GB/s   peak RSS +{memory_mb('VmHWM') - before:.0f} MB",
        flush=True,
    )


def run_case(folder: Path, size: str, count: int, rounds: int) -> None:
    measure(folder, size, count, rounds)
    if size == "1.1B":
        accuracy(folder, size, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="127M, base + 4 only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keep the checkpoints here")
    options = parser.parse_args()
    folder = options.work or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        print(f"{worker_count()} threads, warm page cache, medians of {options.rounds} alternating rounds")
        for size, count in [("127M", 4)] if options.quick else CASES:
            needed = (count + 1) * 2.3e9 if size == "1.1B" else (count + 1) * 0.26e9
            if shutil.disk_usage(folder).free < needed + 1e9:
                print(f"{size:>5} base+{count:<3} NOT MEASURED: {needed / 1e9:.1f} GB of disk needed")
                continue
            make(folder, size, count)
            # A process of its own for each case, so that none inherits another's memory.
            case = multiprocessing.get_context("spawn").Process(
                target=run_case, args=(folder, size, count, options.rounds)
            )
            case.start()
            case.join()
    finally:
        if not options.work:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
