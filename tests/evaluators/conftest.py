"""A tiny untrained Llama with a tokenizer of characters, and one small task of each kind that the harness runs."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

from evaluators.base import Candidate
from evaluators.harness import Harness
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint

LETTERS = "abcdefgh"
DOCUMENTS = 24
GENERATED = 3


def write_tokenizer(folder: Path) -> int:
    """Save a tokenizer of single characters; returns how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", " ", "=", *LETTERS])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    characters.decoder = decoders.Fuse()
    words = PreTrainedTokenizerFast(
        tokenizer_object=characters, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    words.save_pretrained(folder)
    return len(vocabulary)


def write_llama(folder: Path, seed: int = 0, *, tie: bool = False, **options: Any) -> Path:
    """Save a Llama of about 5,000 random weights, large enough to differ from seed to seed, with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": write_tokenizer(folder),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=tie, **(sizes | options)))
    model.save_pretrained(folder)
    return folder


def write_tasks(folder: Path, documents: dict[str, list[dict[str, Any]]], **changes: dict[str, Any]) -> Path:
    """Write each task's YAML, updated by ``changes`` under its name, and beside it its documents as JSONL."""
    folder.mkdir(parents=True)
    shared = {"dataset_path": "json", "test_split": "test", "target_delimiter": "", "doc_to_text": "{{prompt}}"}
    accuracy = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
    kinds: dict[str, dict[str, Any]] = {
        "tiny_likelihood": {
            "output_type": "loglikelihood",
            "doc_to_target": "{{answer}}",
            "metric_list": [accuracy, {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}],
        },
        "tiny_choice": {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "label",
            "metric_list": [accuracy, accuracy | {"metric": "acc_norm"}],
        },
        "tiny_generate": {
            "output_type": "generate_until",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": [" "], "max_gen_toks": GENERATED, "do_sample": False, "temperature": 0.0},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    }
    for name, rows in documents.items():
        config = {"task": name, "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}}}
        config = config | shared | kinds[name] | changes.get(name, {})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        write_documents(folder / f"{name}.jsonl", rows)
    return folder


def write_documents(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def greedy(model: Any, tokenizer: Any, prompt: str, count: int) -> str:
    """What the model says next, one character at a time, up to a space: plain transformers, no lm-eval."""
    said = ""
    for _ in range(count):
        ids = torch.tensor([tokenizer.encode(prompt + said, add_special_tokens=False)])
        character = tokenizer.decode([int(model(ids).logits[0, -1].argmax())])
        if character in (" ", "</s>"):
            break
        said += character
    return said


def likelihood(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """log p(answer | prompt) by plain transformers."""
    ids = tokenizer.encode(prompt + answer, add_special_tokens=False)
    scores = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    start = len(ids) - len(answer)
    return float(sum(scores[place - 1, ids[place]] for place in range(start, len(ids))))


@dataclass(frozen=True)
class Tiny:
    """The model folder, the tasks' folder, and what each document's metric should be, by task."""

    model: Path
    tasks: Path
    documents: dict[str, list[dict[str, Any]]]
    truth: dict[str, dict[int, float]]


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Half of the documents agree with what the model does, so that every metric takes both of its values."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    place = write_llama(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(place)
    rng = random.Random(0)
    documents: dict[str, list[dict[str, Any]]] = {"tiny_likelihood": [], "tiny_choice": [], "tiny_generate": []}
    truth: dict[str, dict[int, float]] = {name: {} for name in documents}
    with torch.no_grad():
        for index in range(DOCUMENTS):
            prompt = "".join(rng.choices(LETTERS, k=rng.randint(3, 9))) + "="
            said, agrees = greedy(model, tokenizer, prompt, GENERATED), index % 2 == 0
            other = "".join(rng.choices(LETTERS, k=GENERATED)) + "h"
            documents["tiny_generate"].append({"prompt": prompt, "answer": said if agrees else other})
            truth["tiny_generate"][index] = float(agrees)
            first = greedy(model, tokenizer, prompt, 1) or " "
            wrong = next(letter for letter in LETTERS if letter != first)
            documents["tiny_likelihood"].append({"prompt": prompt, "answer": first if agrees else wrong})
            is_first = first != " " or likelihood(model, tokenizer, prompt, " ") > -0.6
            truth["tiny_likelihood"][index] = float(agrees and is_first)
            choices = [f"{one}{two}" for one, two in zip(*[rng.sample(LETTERS, 3) for _ in range(2)], strict=True)]
            values = [likelihood(model, tokenizer, prompt, choice) for choice in choices]
            label = values.index(max(values)) if agrees else rng.randrange(3)
            documents["tiny_choice"].append({"prompt": prompt, "choices": choices, "label": label})
            truth["tiny_choice"][index] = float(values[label] == max(values))
    return Tiny(place, write_tasks(folder / "tasks", documents), documents, truth)


@pytest.fixture(scope="package")
def harness(tiny: Tiny) -> Harness:
    return make_harness(tiny)


def make_harness(
    tiny: Tiny, model: Path | None = None, folder: Path | None = None, tasks: list[str] | None = None, **settings: Any
) -> Harness:
    """A harness of all three tasks on the tiny model, or of some ``tasks`` in ``folder``, with other ``settings``."""
    chosen = {"tasks": tasks or sorted(tiny.documents), "task_path": str(folder or tiny.tasks)}
    return Harness(make_settings(**chosen | settings), open_checkpoint(model or tiny.model))


def make_settings(**settings: Any) -> EvaluateSettings:
    return EvaluateSettings.model_validate({"batch_size": 5} | settings)


def select(tiny: Tiny, *names: str) -> dict[str, list[dict[str, Any]]]:
    """Documents of some tasks, as `write_tasks` wants them."""
    return {name: list(tiny.documents[name]) for name in names}


def asked_of_lm_eval(model: Path, tasks: list[Any], folder: Path, batch_size: int = 5, **options: Any) -> Any:
    """lm-eval's own path from the folder to the results; its data files count from the working directory."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    with patch("lm_eval.evaluator.add_env_info"):  # which asks compilers and drivers for their versions, for seconds
        return lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(model), "dtype": "float32"},
            tasks=tasks,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            batch_size=batch_size,
            device="cpu",
            bootstrap_iters=0,
            **options,
        )


def as_candidate(checkpoint: Checkpoint, factor: float = 1.0) -> Candidate:
    """The weights of a folder, times ``factor``."""

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name in checkpoint.tensors:
            yield name, checkpoint.tensor(name) * factor

    return Candidate(checkpoint.id, f"{checkpoint.digest}*{factor}", tensors)


def few_shot(tiny: Tiny, folder: Path) -> Path:
    changes = {"num_fewshot": 2, "fewshot_split": "shots", "fewshot_delimiter": " "}
    data = {"test": "tiny_choice.jsonl", "shots": "shots.jsonl"}
    changes["dataset_kwargs"] = {"data_files": data}  # type: ignore[assignment]
    write_tasks(folder, select(tiny, "tiny_choice"), tiny_choice=changes)
    shots = [{"prompt": f"{one}{two}=", "choices": ["a", "b"], "label": 0} for one in "abcd" for two in "efgh"]
    write_documents(folder / "shots.jsonl", shots)
    return folder
