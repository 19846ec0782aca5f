"""Documents a CPU second by lm-eval's own loop, by ours, and by ours with `evaluate.share_prefixes`, in one run.

    python benchmarks/prefix_sharing.py MODEL DOCUMENTS.jsonl [--documents 40] [--rounds 2]

DOCUMENTS: lines with `question` and `choices`, as of ARC, all asked of one live model in batches of 64. Sides take
turns; the best round of each counts. Tokens are encoded anew in every round by lm-eval alone: we keep them, as a
search does.
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
from lm_eval.models.huggingface import HFLM

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
    sides = {"lm-eval": HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=64, device="cpu")} | {
        name: as_lm_eval(live, EvaluateSettings(tasks=["any"], batch_size=64, share_prefixes=share))
        for name, share in (("apart", False), ("shared", True))
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, list[tuple[float, bool]]] = {}
    for _ in range(options.rounds):
        for name, lm in sides.items():
            started = time.process_time()
            answers[name] = lm.loglikelihood(requests, disable_tqdm=True)
            took[name].append(time.process_time() - started)
    print(f"{len(documents)} documents, {len(requests)} answers, one thread, torch {torch.__version__}")
    for name, seconds in took.items():
        pairs = list(zip(answers["lm-eval"], answers[name], strict=True))
        largest = max(abs(theirs - ours) for (theirs, _), (ours, _) in pairs)
        greedy = sum(theirs != ours for (_, theirs), (_, ours) in pairs)
        ratio = min(took["lm-eval"]) / min(seconds)
        print(
            f"  {name:8} {len(documents) / min(seconds):6.2f} documents a CPU second, {ratio:.2f} times lm-eval's; "
            f"log-likelihoods differ by {largest:.2g} at most, greedy answers in {greedy}"
        )


def _itself(checkpoint: Any) -> Any:
    from evaluators.base import Candidate
    from merging.offspring.weights import stream_of

    return Candidate("model", checkpoint.digest, lambda: stream_of(checkpoint))


if __name__ == "__main__":
    main()
