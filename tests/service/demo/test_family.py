"""The demo family: ordinary folders, seeded, made once, and honest about what training has seen."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kinship.errors import OutputExists
from service.demo.family import TINY, Family, FamilySettings, Specialist, make_family
from service.demo.skills import SKILLS, Skill, documents, exercises, skill_named

HASTY = FamilySettings(
    skills=("count", "max"),
    documents=5,
    steps=3,
    batch_size=4,
    hidden_size=16,
    specialists=(
        Specialist("max", ("max",), 0.5, 2, 1e-3),
        Specialist("max-count", ("count",), 0.5, 2, 1e-3, parent="max"),
    ),
)


def read_documents(family: Family) -> dict[str, list[dict[str, str]]]:
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in family.tasks.glob("*.jsonl")
    }


def digests(family: Family) -> dict[str, str]:
    files = sorted(path for path in family.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(family.folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@torch.no_grad()
def right_answers(model_folder: Path, family: Family) -> torch.Tensor:
    """Per document: is every character of its answer the greedy one, given all characters before it?"""
    drawn = [document for each in read_documents(family).values() for document in each]
    words = AutoTokenizer.from_pretrained(model_folder)
    texts = [document["prompt"] + document["answer"] for document in drawn]
    ids = words(texts, padding=True, return_tensors="pt")["input_ids"]
    predicted = AutoModelForCausalLM.from_pretrained(model_folder)(ids).logits[:, :-1].argmax(-1)
    given = torch.tensor([[len(document["prompt"])] for document in drawn])
    outside = (torch.arange(ids.shape[1] - 1) < given) | (ids[:, 1:] == words.pad_token_id)
    return ((predicted == ids[:, 1:]) | outside).all(1)


def test_folders_load_as_ordinary_models(family: Family) -> None:
    for folder in (family.base, *family.founders):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert model.config.tie_word_embeddings
        assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size


def test_tokenizer_gives_documents_back_and_begins_with_bos(family: Family) -> None:
    words = AutoTokenizer.from_pretrained(family.base)
    for drawn in read_documents(family).values():
        text = drawn[0]["prompt"] + drawn[0]["answer"]
        ids = words(text)["input_ids"]
        assert ids[0] == words.bos_token_id
        assert len(ids) == 1 + len(text)
        assert words.decode(ids, skip_special_tokens=True) == text
    assert len({words.bos_token_id, words.eos_token_id, words.pad_token_id}) == 3


def test_base_has_learned_and_specialists_differ(family: Family) -> None:
    assert right_answers(family.base, family).float().mean() > 0.1
    scored = {tuple(right_answers(folder, family).tolist()) for folder in (family.base, *family.founders)}
    assert len(scored) == 1 + len(family.founders)


def test_training_never_sees_an_evaluation_document(family: Family) -> None:
    held_back = frozenset(document["prompt"] for drawn in read_documents(family).values() for document in drawn)
    shares = dict.fromkeys(TINY.skills, 1.0)
    free = {prompt for prompt, _ in islice(exercises(shares, random.Random(1)), 20_000)}
    guarded = {prompt for prompt, _ in islice(exercises(shares, random.Random(1), held_back), 20_000)}
    assert free & held_back, "the draw is long enough to meet them"
    assert not guarded & held_back


def test_training_is_handed_the_evaluation_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = []

    def spy(shares: dict[str, float], rng: random.Random, excluded: frozenset[str]) -> Iterator[tuple[str, str]]:
        handed.append(excluded)
        return exercises(shares, rng, excluded)

    monkeypatch.setattr("service.demo.family.exercises", spy)
    family = make_family(tmp_path / "family", HASTY)
    prompts = {document["prompt"] for drawn in read_documents(family).values() for document in drawn}
    assert handed == [prompts] * 3


def test_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    first = digests(make_family(tmp_path / "first", HASTY))
    again = digests(make_family(tmp_path / "again", HASTY))
    other = digests(make_family(tmp_path / "other", replace(HASTY, seed=1)))
    assert first == again
    assert not {other[name] for name in first if name.endswith(("safetensors", "jsonl"))} & set(first.values())


def test_making_leaves_threads_and_random_state_alone(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    make_family(tmp_path / "family", HASTY)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_second_call_returns_what_is_there(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []

    def progress(label: str, step: int, total: int) -> None:
        steps.append((label, step, total))

    first = make_family(tmp_path / "family", HASTY, progress)
    labels = ["base"] * 3 + ["max"] * 2 + ["max-count"] * 2
    assert steps == [(label, step, 7) for step, label in enumerate(labels, 1)]
    steps.clear()
    assert make_family(tmp_path / "family", HASTY, progress) == first
    assert not steps


def test_anything_else_in_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists):
        make_family(tmp_path, HASTY)
    make_family(tmp_path / "family", HASTY)
    with pytest.raises(OutputExists):
        make_family(tmp_path / "family", replace(HASTY, seed=1))


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(label: str, step: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_family(tmp_path / "family", HASTY, stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.name)
def test_documents_are_unlike_and_seeded(skill: Skill) -> None:
    drawn = documents(skill, 300, seed=3)
    assert len({document["prompt"] for document in drawn}) == 300
    assert drawn == documents(skill, 300, seed=3)
    assert drawn != documents(skill, 300, seed=4)
    for document in drawn:
        assert document["prompt"].startswith(skill.name + " ")
        assert document["prompt"].endswith("=")
        assert document["answer"].endswith("\n")


@pytest.mark.parametrize(
    ("skill", "solve"),
    [
        ("reverse", lambda given: given[::-1]),
        ("sort", lambda given: "".join(sorted(given))),
        ("max", lambda given: max(given.split())),
        ("add", lambda given: str(sum(map(int, given)))),
        ("unique", lambda given: "".join(sorted(set(given), key=given.index))),
        ("count", lambda given: str(given[2:].count(given[0]))),
        ("pick", lambda given: "".join(given.split()[1][int(i) - 1] for i in given.split()[0])),
        ("shift", lambda given: "".join(chr((ord(c) - 97 + int(given[0])) % 26 + 97) for c in given[2:])),
    ],
)
def test_answers_are_right(skill: str, solve: Callable[[str], str]) -> None:
    for document in documents(skill_named(skill), 100, seed=5):
        given = document["prompt"].removeprefix(skill + " ").removesuffix("=")
        assert document["answer"] == solve(given) + "\n"
