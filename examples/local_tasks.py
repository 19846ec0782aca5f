"""Write lm-eval tasks for benchmark questions that lie in a folder as JSONL: ARC-Easy, PIQA, WinoGrande and BLiMP.

    python examples/local_tasks.py DATA TASKS
    kinship score MODEL --task-path TASKS --tasks local_arc_easy,local_piqa,local_winogrande --limit 30

DATA holds arc_easy_test.jsonl and piqa_val.jsonl (question, choices, label), winogrande_val.jsonl (sentence, option1,
option2, answer) and blimp_*.jsonl (sentence_good, sentence_bad). Files that are not there get no task. Prompts and
metrics are those of lm-eval's own tasks.
"""

import sys
from pathlib import Path

import yaml

ACCURACY = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
QUESTION = {
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{label}}",
    "metric_list": [ACCURACY, ACCURACY | {"metric": "acc_norm"}],
}
# The likelihood of what follows the blank, after the sentence with either option in it.
WINOGRANDE = {
    "doc_to_text": "{{answer | int - 1}}",
    "doc_to_choice": "{{[sentence.split('_', 1)[0] + option1, sentence.split('_', 1)[0] + option2]}}",
    "doc_to_target": "{{sentence.split('_', 1)[1].strip()}}",
    "metric_list": [ACCURACY],
}
PAIR = {
    "doc_to_text": "",
    "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
    "doc_to_target": 0,
    "metric_list": [ACCURACY],
}


def write_tasks(data: Path, folder: Path) -> list[str]:
    """Write a YAML file for each known file of ``data`` into ``folder``; returns the names of the tasks."""
    known = {"arc_easy_test": QUESTION, "piqa_val": QUESTION, "winogrande_val": WINOGRANDE}
    known |= {file.stem: PAIR for file in sorted(data.glob("blimp_*.jsonl"))}
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for stem, kind in known.items():
        file = data / f"{stem}.jsonl"
        if not file.is_file():
            continue
        name = f"local_{stem.removesuffix('_test').removesuffix('_val')}"
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file.resolve())}},
            "test_split": "test",
            "output_type": "multiple_choice",
            **kind,
            "metadata": {"version": 1},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        names.append(name)
    return names


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(",".join(write_tasks(Path(sys.argv[1]), Path(sys.argv[2]))))
