"""Train the demo family, a tiny Llama and its fine-tuned specialists, into ordinary Hugging Face folders."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from kinship.output import output_folder
from service.demo.skills import SKILLS, exercises, write_tasks

Progress = Callable[[str, int, int], None]

FORMAT = 2  # raise it when the same settings come to give other models
RECORD = "family.json"
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CHARACTERS = "\n =0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Specialist:
    """A fine-tuned member of the family.

    Attributes:
        name: folder of the model.
        own_skills: the skills it trains on most.
        share: fraction of each batch from its own skills; the rest is spread over the others.
        steps: optimiser steps.
        learning_rate: peak learning rate.
        parent: the model it starts from, "base" or a specialist listed before it.
    """

    name: str
    own_skills: tuple[str, ...]
    share: float
    steps: int
    learning_rate: float
    parent: str = "base"


@dataclass(frozen=True)
class FamilySettings:
    """Everything a family is made from; equal settings give equal bytes on one machine."""

    specialists: tuple[Specialist, ...]
    skills: tuple[str, ...] = tuple(skill.name for skill in SKILLS)
    seed: int = 0
    documents: int = 500
    steps: int = 800
    learning_rate: float = 3e-3
    batch_size: int = 64
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class Family:
    """Where a family lies: `base` and `founders` are model folders, `tasks` holds lm-eval's YAML files.

    ``adapters``: the founders are adapters of the base.
    """

    folder: Path
    base: Path
    founders: tuple[Path, ...]
    tasks: Path
    task_names: tuple[str, ...]
    adapters: bool = False

    def references(self, root: Path | None = None) -> dict[str, str]:
        """The founders by name, as a run file refers to them; paths count from ``root``, where one is given."""
        base, *founders = (path.relative_to(root) if root else path for path in (self.base, *self.founders))
        return {path.name: f"{base}+{path}" if self.adapters else str(path) for path in founders}


DEMO = FamilySettings(
    specialists=(
        Specialist("reverse-sort", ("reverse", "sort"), 0.65, 200, 1e-3),
        Specialist("max-add", ("max", "add"), 0.65, 200, 1e-3),
        Specialist("shift-count", ("shift", "count"), 0.65, 200, 1e-3),
        Specialist("pick-unique", ("pick", "unique"), 0.65, 200, 1e-3),
        Specialist("sort-unique", ("sort", "unique"), 0.65, 100, 1e-3, parent="reverse-sort"),
        Specialist("add-only", ("add",), 0.95, 140, 2e-3),
    ),
)

TINY = FamilySettings(
    skills=("sort", "max", "count", "add"),
    documents=60,
    steps=230,
    learning_rate=4e-3,
    batch_size=32,
    hidden_size=48,
    specialists=(
        Specialist("sort", ("sort",), 0.6, 40, 1.5e-3),
        Specialist("max-add", ("max", "add"), 0.7, 40, 1.5e-3),
        Specialist("count", ("count",), 0.6, 40, 1.5e-3),
        Specialist("count-sort", ("sort",), 0.6, 25, 1.5e-3, parent="count"),
    ),
)


def make_family(folder: Path, settings: FamilySettings = DEMO, progress: Progress | None = None) -> Family:
    """Train the family of `settings` into `folder`, or return at once the same family made there before.

    Args:
        folder: made by this call, whole or not at all: it is built beside itself and renamed last.
        settings: what to make.
        progress: called as ``progress(label, step, total)`` through all optimiser steps of the family.

    Raises:
        kinship.errors.OutputExists: `folder` holds anything but this family.
    """
    family = Family(
        folder=folder,
        base=folder / "base",
        founders=tuple(folder / specialist.name for specialist in settings.specialists),
        tasks=folder / "tasks",
        task_names=tuple(f"demo_{name}" for name in settings.skills),
    )
    description = json.dumps({"format": FORMAT} | asdict(settings), indent=2) + "\n"
    record = folder / RECORD
    if record.is_file() and record.read_text(encoding="utf-8") == description:
        return family
    with output_folder(folder) as partial, one_quiet_thread():
        excluded = write_tasks(partial / "tasks", settings.skills, settings.documents, settings.seed)
        _train_family(partial, settings, excluded, progress or (lambda label, step, total: None))
        (partial / record.name).write_text(description, encoding="utf-8")
    return family


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the family's tokenizer: one token a character, after a token that begins every text."""
    vocabulary = {token: i for i, token in enumerate((PAD, BOS, EOS, *CHARACTERS))}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    characters.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def _train_family(folder: Path, settings: FamilySettings, excluded: frozenset[str], progress: Progress) -> None:
    """Train the base, then each specialist from its parent, and save each when it is done."""
    words = tokenizer()
    trained: dict[str, LlamaForCausalLM] = {}
    total = settings.steps + sum(specialist.steps for specialist in settings.specialists)
    done = 0

    def train(model: LlamaForCausalLM, member: Specialist) -> None:
        nonlocal done
        rng = random.Random(f"{member.name}/{settings.seed}")
        drawn = exercises(_shares(member, settings.skills), rng, excluded)
        for _ in _train(model, words, drawn, member.steps, settings.batch_size, member.learning_rate):
            done += 1
            progress(member.name, done, total)
        model.save_pretrained(folder / member.name)
        words.save_pretrained(folder / member.name)
        trained[member.name] = model

    train(_new_model(settings), Specialist("base", settings.skills, 1.0, settings.steps, settings.learning_rate))
    for specialist in settings.specialists:
        train(deepcopy(trained[specialist.parent]), specialist)


def _train(
    model: LlamaForCausalLM,
    words: PreTrainedTokenizerFast,
    drawn: Iterator[tuple[str, str]],
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Iterator[None]:
    """Train in place on the answers of `drawn`; yields after each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.2)
    model.train()
    for _ in range(steps):
        ids, labels = _encode(words, [next(drawn) for _ in range(batch_size)])
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield
    model.eval()


def _encode(words: PreTrainedTokenizerFast, batch: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Token ids (batch, longest) of whole exercises, padded on the right, and labels for the answers only."""
    texts = [prompt + answer + EOS for prompt, answer in batch]
    ids = words(texts, padding=True, return_tensors="pt")["input_ids"]
    answer_starts = torch.tensor([1 + len(prompt) for prompt, _ in batch])[:, None]
    is_answer = (torch.arange(ids.shape[1]) >= answer_starts) & (ids != words.pad_token_id)
    return ids, ids.masked_fill(~is_answer, -100)


def _new_model(settings: FamilySettings) -> LlamaForCausalLM:
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=settings.hidden_size,
        intermediate_size=5 * settings.hidden_size // 2,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=64,
        # Both suit short texts and a small width: in as many steps the base learns far more than by default.
        rope_theta=100.0,
        initializer_range=0.04,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return LlamaForCausalLM(config)


def _shares(specialist: Specialist, skills: tuple[str, ...]) -> dict[str, float]:
    own = specialist.own_skills
    others = [name for name in skills if name not in own]
    return {name: specialist.share / len(own) for name in own} | {
        name: (1 - specialist.share) / len(others) for name in others
    }


@contextmanager
def one_quiet_thread() -> Iterator[None]:
    """Tiny models train fastest on one thread, and bytes do not depend on cores; no bars of transformers' own."""
    threads, bars = torch.get_num_threads(), transformers_logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if bars:
            transformers_logging.enable_progress_bar()
