"""Six pairs of four 127M models: this program against the paper's own tool, whole processes, in one run.

    python benchmarks/vs_modelkinship.py --clone FOLDER [--python PYTHON]

FOLDER is a clone of zjunlp/ModelKinship, PYTHON an interpreter that has torch, transformers and click (default: this
one). Models are made here, in fp32, which that tool needs. Prints wall, CPU and peak memory of both, the ratios, and
how far the values of both are from a float64 reference.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from itertools import combinations
from pathlib import Path

from common import in_turn, make_models, print_costs, run
from kinship_speed import reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clone", type=Path, required=True, help="clone of zjunlp/ModelKinship")
    parser.add_argument("--python", default=sys.executable, help="interpreter to run it with")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        base, *models = make_models(folder)
        files = [path / "model.safetensors" for path in [base, *models]]
        truth = dict(zip(("pcc", "cosine", "euclidean"), reference(files), strict=True))
        for metric, theirs_name in (("pcc", "pcc"), ("cosine", "cs"), ("euclidean", "ed")):
            command = [sys.executable, "-m", "service.cli", "matrix", *map(str, models)]
            ours, our_cost = run([*command, "--base", str(base), "--metric", metric, "--json"])
            values = json.loads(ours)["values"]
            their_costs, their_values = [], {}
            for one, other in combinations(range(4), 2):
                command = [options.python, "-m", "metrics.run_command", str(models[one]), str(models[other]), str(base)]
                environment = {"PYTHONPATH": str(options.clone), "HF_HUB_OFFLINE": "1"}
                text, cost = run([*command, theirs_name], environment)
                number = re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)
                their_values[one, other] = float(number[-1])
                their_costs.append(cost)
            print(f"{metric}: six pairs")
            print_costs([(our_cost, in_turn(their_costs))], "ModelKinship")
            scale = 1.0 if metric != "euclidean" else float(truth[metric].max())
            mine = max(abs(values[i][j] - truth[metric][i, j]) for i, j in their_values) / scale
            their = max(abs(value - truth[metric][i, j]) for (i, j), value in their_values.items()) / scale
            print(f"  largest error against float64: ours {mine:.1e}, ModelKinship {their:.1e}", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
