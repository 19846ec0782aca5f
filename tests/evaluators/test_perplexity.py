import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.perplexity import Perplexity, chunks, lines
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, ReferenceNotFound
from tests.evaluators.conftest import LETTERS, Tiny, as_candidate, make_settings


@pytest.fixture
def text(tmp_path: Path) -> Path:
    rng = random.Random(3)
    content = ["".join(rng.choices(LETTERS + "  =", k=rng.randint(5, 150))) for _ in range(16)]
    path = tmp_path / "story.txt"
    path.write_text("\n\n".join(content), encoding="utf-8")
    return path


def evaluator(tiny: Tiny, **text: Any) -> Perplexity:
    settings = make_settings(perplexity=[text])
    return Perplexity(settings, open_checkpoint(tiny.model))


def likelihood(tiny: Tiny, text: str) -> tuple[float, int]:
    """log p(text) with its first token after <s>, in windows of the model's 64 tokens; and the number of tokens."""
    model = AutoModelForCausalLM.from_pretrained(tiny.model, dtype=torch.float64)
    ids = AutoTokenizer.from_pretrained(tiny.model).encode(text)
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(ids), 64):
            window = ids[start : start + 64]
            if start == 0:
                given, scored = [1, *window[:-1]], window
            else:
                # The last window reaches back as far as the context goes, and scores what is new.
                given, scored = ids[max(0, start + len(window) - 65) : start + len(window) - 1], window
            scores = model(torch.tensor([given])).logits[0].log_softmax(dim=-1)[-len(scored) :]
            total += float(sum(scores[place, token] for place, token in enumerate(scored)))
    return total, len(ids)


@pytest.mark.parametrize("per", ["byte", "token"])
def test_values_are_the_models_log_likelihood(tiny: Tiny, text: Path, per: str) -> None:
    perplexity = evaluator(tiny, file=str(text), documents="lines", per=per)
    documents = lines(text.read_text())
    assert max(map(len, documents)) > 64  # longer than the context
    found = perplexity.run(as_candidate(open_checkpoint(tiny.model)), {"story": range(len(documents))})["story"]
    for index, document in enumerate(documents):
        total, tokens = likelihood(tiny, document)
        assert found[index] == pytest.approx(total / (len(document.encode()) if per == "byte" else tokens), rel=1e-5)
    assert perplexity.tasks[0].metric == f"log-likelihood per {per}"


def test_a_better_model_scores_higher(tiny: Tiny, tmp_path: Path) -> None:
    # What the model says itself is likelier than what it does not.
    model = AutoModelForCausalLM.from_pretrained(tiny.model)
    tokenizer = AutoTokenizer.from_pretrained(tiny.model)
    said = []
    for letter in LETTERS:
        ids = model.generate(torch.tensor([[1, *tokenizer.encode(letter)]]), max_new_tokens=20, do_sample=False)
        said.append("".join(tokenizer.decode([i]) for i in ids[0][1:] if i > 4))
    (tmp_path / "own.txt").write_text("\n".join(said))
    (tmp_path / "noise.txt").write_text("\n".join("".join(random.Random(9).sample(line, len(line))) for line in said))
    means = []
    for name in ("own", "noise"):
        perplexity = evaluator(tiny, file=str(tmp_path / f"{name}.txt"), documents="lines")
        count = sum(len(ids) for ids in perplexity.tasks[0].documents.values())
        values = perplexity.run(as_candidate(open_checkpoint(tiny.model)), {name: range(count)})[name]
        means.append(sum(values.values()) / count)
    assert means[0] > means[1] + 0.5
    assert 0 > means[0] > -math.log(13)


@given(st.text(alphabet="ab \n", max_size=200), st.integers(1, 30))
def test_chunks_are_the_text(text: str, characters: int) -> None:
    pieces = chunks(text, characters)
    assert all(len(piece) <= characters + 1 for piece in pieces)
    assert all(piece.strip() for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_words_are_kept_whole_where_they_fit() -> None:
    words = [f"word{number}" for number in range(200)]
    assert " ".join(chunks(" ".join(words), 50)).split() == words
    assert chunks("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]


def test_the_digest_is_that_of_the_text_not_of_its_place(tiny: Tiny, text: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    moved = text.rename(tmp_path / "other" / "renamed.txt")
    text.write_text(moved.read_text())
    short: dict[str, Any] = {"characters": 80}
    digests = [
        evaluator(tiny, file=str(text), **options).tasks[0].digest
        for options in (short, {"documents": "lines"}, short | {"per": "token"}, {"characters": 90})
    ]
    assert len(set(digests)) == 4
    assert evaluator(tiny, file=str(moved), **short).tasks[0].digest == digests[0]
    text.write_text(text.read_text().replace("a", "b", 1))
    assert evaluator(tiny, file=str(text), **short).tasks[0].digest not in digests


def test_files_that_cannot_be_read_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound, match="no text file"):
        evaluator(tiny, file=str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidConfig, match="is no UTF-8 text"):
        evaluator(tiny, file=str(tmp_path / "bytes.txt"))
    (tmp_path / "short.txt").write_text("a word")
    with pytest.raises(InvalidConfig, match="too few documents"):
        evaluator(tiny, file=str(tmp_path / "short.txt"))
