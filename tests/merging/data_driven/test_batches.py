"""Text files as streams of batches."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kinship.errors import InvalidConfig, ReferenceNotFound
from merging.data_driven import batches as module
from merging.data_driven.batches import Batch, TextBatches, checked, digest, examples, require_repeatable


def letters(text: str, truncation: bool, max_length: int) -> dict[str, list[int]]:
    """A tokenizer of letters, called as those of transformers are."""
    assert truncation
    return {"input_ids": [ord(letter) for letter in text][:max_length]}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def read(stream: TextBatches) -> list[str]:
    """The documents, put together from their tokens."""
    found = []
    for batch in stream:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            found.append("".join(chr(token) for token in ids[mask == 1]))
    return found


def test_lines_become_documents_in_order(write: Callable[[str, str], Path]) -> None:
    path = write("data.txt", "one\n\n  \nfour and\nx\nfünf")
    stream = TextBatches(path, letters, batch_size=2)
    assert read(stream) == ["one", "four and", "fünf"]  # a single token predicts nothing
    assert read(stream) == ["one", "four and", "fünf"]
    assert [len(batch["input_ids"]) for batch in stream] == [2, 1]


def test_padding_is_masked_and_has_no_label(write: Callable[[str, str], Path]) -> None:
    (batch,) = TextBatches(write("data.txt", "abc\nde"), letters)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[97, 98, 99], [100, 101, -100]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_documents_are_cut_and_counted(write: Callable[[str, str], Path]) -> None:
    path = write("data.txt", "abcdef\nghijkl\nmnopqr")
    assert read(TextBatches(path, letters, max_length=4, documents=2)) == ["abcd", "ghij"]


def test_jsonl_has_its_documents_in_a_field(write: Callable[[str, str], Path]) -> None:
    rows = [{"text": "no", "question": "two\nlines"}, {"question": "yes"}]
    path = write("data.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert read(TextBatches(path, letters, field="question")) == ["two\nlines", "yes"]


@pytest.mark.parametrize("line", ["{", "[1]", '{"other": "x"}', '{"text": 3}', '"text"'])
def test_a_line_that_holds_no_document_is_named(write: Callable[[str, str], Path], line: str) -> None:
    path = write("data.jsonl", '{"text": "fine"}\n' + line)
    with pytest.raises(InvalidConfig, match=r"Line 2 of .*data\.jsonl"):
        list(TextBatches(path, letters))


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReferenceNotFound, match=r"nowhere\.txt"):
        list(TextBatches(tmp_path / "nowhere.txt", letters))
    path = tmp_path / "data.txt"
    path.write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(InvalidConfig, match="UTF-8"):
        list(TextBatches(path, letters))
    monkeypatch.setattr(module, "MAX_LINE", 10)
    path.write_text("short\n" + 20 * "x")
    with pytest.raises(InvalidConfig, match="Line 2"):
        list(TextBatches(path, letters))


def test_a_file_is_read_as_batches_are_asked_for(tmp_path: Path) -> None:
    seen: list[str] = []

    def watched(text: str, **options: Any) -> dict[str, list[int]]:
        seen.append(text)
        return letters(text, **options)

    path = tmp_path / "data.txt"
    path.write_text("\n".join(f"document {number}" for number in range(1000)))
    next(iter(TextBatches(path, watched, batch_size=3)))
    assert len(seen) == 3


def test_a_stream_without_batches_is_refused(write: Callable[[str, str], Path]) -> None:
    with pytest.raises(InvalidConfig, match="empty"):
        list(checked([]))
    with pytest.raises(InvalidConfig, match=r"data\.txt holds no document of two tokens"):
        list(TextBatches(write("data.txt", "\n\nx\n"), letters))
    with pytest.raises(InvalidConfig, match="texts: gives holds no document"):
        list(TextBatches(None, letters, texts=("", "x")))


@pytest.mark.parametrize(
    "batch", [{}, {"x": torch.zeros(0, 2)}, {"x": torch.zeros(2, 2), "labels": torch.zeros(3)}, {"x": torch.tensor(1)}]
)
def test_a_batch_needs_rows_alike(batch: Batch) -> None:
    fine = {"x": torch.zeros(2, 2)}
    with pytest.raises(InvalidConfig, match="Batch 2"):
        list(checked([fine, batch]))


def test_examples_are_the_rows() -> None:
    batch = {"x": torch.arange(6).reshape(3, 2), "labels": torch.arange(3)}
    rows = list(examples(batch))
    assert [row["x"].tolist() for row in rows] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert [row["labels"].tolist() for row in rows] == [[0], [1], [2]]


def test_what_can_be_read_only_once_is_refused() -> None:
    def once() -> Iterator[Batch]:
        yield {"x": torch.zeros(1, 1)}

    require_repeatable([{"x": torch.zeros(1, 1)}])
    with pytest.raises(InvalidConfig, match="only once"):
        require_repeatable(once())


def test_the_digest_is_of_all_that_is_in_the_batches() -> None:
    one = {"x": torch.arange(4).reshape(2, 2), "y": torch.zeros(2)}
    others: list[list[Batch]] = [
        [one, one],
        [{"x": one["x"], "z": one["y"]}],
        [one | {"x": one["x"].T}],
        [one | {"x": one["x"].int()}],
        [one | {"y": torch.zeros(2, 1)}],
        [one | {"y": torch.tensor([0.0, 1.0])}],
    ]
    assert digest([one]) == digest([dict(reversed(one.items()))])
    assert len({digest([one]), *map(digest, others)}) == 1 + len(others)


def test_with_a_real_tokenizer(shared: Path, write: Callable[[str, str], Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "models/stories260K", local_files_only=True)
    texts = ["Once upon a time there was a dog.", "Lily was happy."]
    (batch,) = TextBatches(write("data.txt", "\n".join(texts)), tokenizer)
    for text, ids, mask in zip(texts, batch["input_ids"], batch["attention_mask"], strict=True):
        assert tokenizer.decode(ids[mask == 1], skip_special_tokens=True).strip() == text
