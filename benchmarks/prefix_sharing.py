"""Documents a CPU second with and without `evaluate.share_prefixes`, both sides in one run, on one model's likelihoods.

    python benchmarks/prefix_sharing.py MODEL DOCUMENTS.jsonl [--documents 40] [--rounds 2]

DOCUMENTS: lines with `question` and `choices`, as of ARC. Sides take turns; the best round of each counts.
"""

import argparse
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["KINSHIP_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import torch

from evaluators.live import LiveModel
from evaluators.lm_eval.model import as_lm_eval
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    documents = [json.loads(line) for line in options.file.read_text().splitlines()[: options.documents]]
    requests = [
        SimpleNamespace(args=(f"Question: {document['question']}\nAnswer:", f" {choice}"))
        for document in documents
        for choice in document["choices"]
    ]
    checkpoint = open_checkpoint(str(options.model))
    live = LiveModel(checkpoint, "cpu", "float32")
    live.hold(_itself(checkpoint))
    sides = {share: as_lm_eval(live, EvaluateSettings(tasks=["any"], share_prefixes=share)) for share in (False, True)}
    took: dict[bool, list[float]] = {False: [], True: []}
    answers: dict[bool, list[tuple[float, bool]]] = {}
    for _ in range(options.rounds):
        for share, lm in sides.items():
            started = time.process_time()
            answers[share] = lm.loglikelihood(requests)
            took[share].append(time.process_time() - started)
    apart, together = (len(documents) / min(took[share]) for share in (False, True))
    largest = max(abs(a - b) for (a, _), (b, _) in zip(answers[False], answers[True], strict=True))
    greedy = sum(a != b for (_, a), (_, b) in zip(answers[False], answers[True], strict=True))
    print(f"{len(documents)} documents, {len(requests)} answers, one thread, torch {torch.__version__}")
    print(f"apart {apart:.2f}, shared {together:.2f} documents a CPU second: {together / apart:.2f} times")
    print(f"log-likelihoods differ by {largest:.2g} at most, greedy answers in {greedy}")


def _itself(checkpoint: Any) -> Any:
    from evaluators.base import Candidate
    from merging.offspring.weights import stream_of

    return Candidate("model", checkpoint.digest, lambda: stream_of(checkpoint))


if __name__ == "__main__":
    main()
