"""The kernels give the same bits on every CPU: each instruction set that this one can execute, a process each."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from kinship.lanes import LANES
from kinship.measures.moments import TILE

# What Numba compiles for, and what a CPU must have to execute it.
CPUS = {
    "x86-64": set(),
    "haswell": {"avx2", "fma", "bmi", "bmi2"},
    "skylake-avx512": {"avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd"},
    "icelake-server": {"avx512f", "avx512vbmi", "avx512vnni", "avx512bitalg", "gfni"},
}

# Weights from integers alone, so that they are the same everywhere too; counts about the ends of lanes and tiles.
PROGRAM = f"""
import hashlib, sys
import numpy as np
from kinship.heritage.distances import _Gaps
from kinship.measures.moments import task_vector_moments, task_vector_row
from kinship.sketches.sketch import fold_chunk

found = hashlib.sha256()
for count in (1, {LANES - 1}, {LANES}, {TILE - 1}, {2 * TILE + 1}):
    for size in (1, 2, 3, 5, 8):
        draws = np.random.default_rng(count).integers(-(2**20), 2**20, (size, count), dtype=np.int32)
        rows = draws.astype(np.float32) * np.float32(2**-19)
        for stored in (rows, (rows.view(np.uint32) >> 16).astype(np.uint16)):
            gram, sums = np.zeros((size, size)), np.zeros(size)
            task_vector_moments(stored, gram, sums)
            products, gaps = np.zeros(size + 1), np.zeros(size)
            total = task_vector_row(stored, stored[-1], products, gaps)
            squares, apart = _Gaps(1)(stored)
            sketch = fold_chunk(stored[0], 0, "h.0.weight")
            for numbers in (gram, sums, products, gaps, [total], squares, apart, sketch.sums, sketch[1:]):
                found.update(np.asarray(numbers, dtype="<f8").tobytes())
print(found.hexdigest())
"""

# Of every CPU, whatever its maker and its vectors. Where the kernels are changed on purpose, this changes with them.
EXPECTED = "0a8d709e1bcfb0c2bc1f44fff207c1cefa2dd9ce3c5419e1d0ef3d8f9d1c00ab"


def test_the_bits_on_this_cpu_just_compiled_and_from_the_cache(tmp_path: Path) -> None:
    assert _digest(tmp_path, {}) == EXPECTED
    compiled = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ic]")}
    assert compiled
    assert _digest(tmp_path, {}) == EXPECTED
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ic]")} == compiled  # nothing was compiled


@pytest.mark.parametrize("cpu", CPUS)
def test_the_bits_under_each_instruction_set(cpu: str, tmp_path: Path) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"{cpu} is an x86 CPU and this machine is not: {platform.machine()}")
    features = binding.get_host_cpu_features()
    lacking = sorted(feature for feature in CPUS[cpu] if not features.get(feature))
    if lacking:
        pytest.skip(f"left out: code for {cpu} cannot be executed here, which lacks {', '.join(lacking)}")
    assert _digest(tmp_path, {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}) == EXPECTED


def _digest(cache: Path, cpu: dict[str, str]) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_CPU")}
    environment |= {"NUMBA_CACHE_DIR": str(cache)} | cpu
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_lane_sums_follow_their_definition() -> None:
    """By lanes in fp32, one fused multiply-add a term, then in float64 the upper half on the lower."""
    from numba import njit

    from kinship.lanes import dot, fill, fill_less, gap

    @njit
    def dots(x, y):  # type: ignore[no-untyped-def]
        first, second = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
        width = fill(x, first)
        fill_less(y, first, second)
        return dot(first[:width], second[:width]), gap(first[:width], second[:width])

    x, y = np.random.default_rng(3).normal(size=(2, 1001)).astype(np.float32)
    for found, one, other in zip(dots(x, y), (x, x - (y - x)), (y - x, x - (y - x)), strict=True):
        lanes = np.zeros(LANES, dtype=np.float32)
        for start in range(0, 1008, LANES):
            a, b = (np.pad(row, (0, 7))[start : start + LANES].astype(np.float64) for row in (one, other))
            lanes = (a * b + lanes).astype(np.float32)  # exact in float64 but for one rounding far below fp32's
        want = lanes.astype(np.float64)
        while len(want) > 1:
            want = want[: len(want) // 2] + want[len(want) // 2 :]
        assert found == want[0]
