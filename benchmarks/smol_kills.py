"""A search over a smol family, killed at random moments by SIGKILL: does it end with the same export?

    python benchmarks/smol_kills.py FAMILY --work WORK [--kills 5] [--within 60] [--seed 0]

FAMILY is a folder that `kinship demo --family smol` or `smol_families.py` made. Nothing is cached between the runs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import yaml

from service.demo.smol.family import FORMAT


def run_file(family: Path, base: Path, work: Path) -> Path:
    """Top-k greedy merging, six evaluations, six documents of a phenomenon."""
    record = json.loads((family / "family.json").read_text())
    assert record["format"] == FORMAT
    content = {
        "base": str(base),
        "founders": {one["name"]: f"{base}+{family / one['name']}" for one in record["founders"]},
        "evaluate": {
            "tasks": [f"smol_{name}" for name in record["asked"]],
            "task_path": str(family / "tasks"),
            "limit": 6,
        },
        "strategy": {"variant": "kinship"},
        "stop": {"evaluations": 6},
    }
    file = work / "run.yml"
    file.write_text(yaml.safe_dump(content))
    return file


def evolve(file: Path, folder: Path) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "service.cli",
        "evolve",
        str(file),
        "--out",
        str(folder),
        "--resume",
    ]
    command += ["--out", str(folder), "--resume"]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=nothing, stderr=nothing, env=os.environ | {"KINSHIP_CACHE": "off"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=Path)
    parser.add_argument("--base", type=Path, help="default: FAMILY/base")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--within", type=float, default=60, help="seconds after its start that it is killed, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    file = run_file(options.family.resolve(), (options.base or options.family / "base").absolute(), options.work)
    if evolve(file, options.work / "whole").wait() != 0:
        raise SystemExit("the run that nobody kills fails")
    moments = random.Random(options.seed)
    for number in range(options.kills):
        process = evolve(file, options.work / "killed")
        moment = moments.uniform(0, options.within)
        try:
            process.wait(moment)
            print(f"{number + 1}: ended before {moment:.1f} s", flush=True)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"{number + 1}: killed after {moment:.1f} s", flush=True)
    assert evolve(file, options.work / "killed").wait() == 0
    one, other = ((options.work / name / "export.json").read_bytes() for name in ("whole", "killed"))
    print(f"{len(one)} bytes, {sha256(one).hexdigest()[:16]}; {'the same' if one == other else 'ANOTHER'} export")
    if one != other:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
