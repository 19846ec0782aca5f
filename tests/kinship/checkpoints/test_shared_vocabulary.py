import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix, open_checkpoint
from kinship.checkpoints import shared_vocabulary as vocabulary
from kinship.checkpoints.shared_vocabulary import SelectedRows, read_vocabulary, share_vocabulary
from kinship.errors import InvalidConfig, KinshipError, MalformedCheckpoint, MismatchedModels, UnsupportedCheckpoint
from kinship.measures import passes as chunks
from kinship.measures.comparison import ComparisonOptions, compare
from kinship.measures.preflight import preflight
from tests.kinship.adapters import write

EMBEDDING, HEAD, LAYER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"
WIDTH = 5


def model(folder: Path, tokens: Sequence[str], seed: int, padding: int = 0, head: bool = True) -> Path:
    """A model whose token i is ``tokens[i]``; the last two are added tokens. Weights are random."""
    generator = torch.Generator().manual_seed(seed)
    names = [EMBEDDING, HEAD] if head else [EMBEDDING]
    tensors = {name: torch.randn(len(tokens) + padding, WIDTH, generator=generator) for name in names}
    tensors[LAYER] = torch.randn(3, WIDTH, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    ids = {token: id for id, token in enumerate(tokens)}
    added = [{"id": ids[token], "content": token} for token in tokens[-2:]]
    write_tokenizer(folder, {"model": {"vocab": {token: ids[token] for token in tokens[:-2]}}, "added_tokens": added})
    return folder


def write_tokenizer(folder: Path, content: Any) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(content))


def expected(base: Path, models: list[Path], tokens: dict[Path, Sequence[str]]) -> np.ndarray:
    """Pearson correlation of the task vectors over the shared tokens, looked up one by one."""
    shared = [token for token in tokens[base] if all(token in tokens[path] for path in models)]

    def flat(path: Path) -> np.ndarray:
        tensors = {name: tensor.double().numpy() for name, tensor in load_file(path / "model.safetensors").items()}
        rows = [tensors[name][list(tokens[path]).index(token)] for name in (EMBEDDING, HEAD) for token in shared]
        return np.concatenate([*rows, tensors[LAYER].ravel()])

    return np.corrcoef([flat(path) - flat(base) for path in models])


@pytest.mark.parametrize("chunk", [1 << 20, 7, 1])
def test_rows_are_matched_by_token(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(chunks, "MIN_CHUNK", 1)
    tokens: dict[Path, Sequence[str]] = {
        tmp_path / "base": "abcdefgh",
        tmp_path / "grown": "abcdefghxy",
        tmp_path / "turned": "hbcadefg",  # as many tokens, in another order
        tmp_path / "cut": "cdefabz",
    }
    base, *models = (model(path, text, seed) for seed, (path, text) in enumerate(tokens.items()))
    found = kinship_matrix(models, base, options=ComparisonOptions(vocab="shared"))
    np.testing.assert_allclose(found.values, expected(base, models, tokens), atol=1e-6)
    assert found.tensors == 3
    reason = "all but the rows of the 6 tokens that all tokenizers share"
    assert found.left_out == {EMBEDDING: reason, HEAD: reason}


def test_without_being_asked_for_rows_that_differ_are_left_out(tmp_path: Path) -> None:
    base, grown = model(tmp_path / "base", "abcd", 0), model(tmp_path / "grown", "abcdef", 1)
    found = kinship_matrix([grown], base)
    assert found.tensors == 1
    assert found.left_out[EMBEDDING] == f"6 rows in {grown}, 4 in {base}"


def test_padding_is_not_compared(tmp_path: Path) -> None:
    tokens: dict[Path, Sequence[str]] = {tmp_path / name: "abcdef" for name in ("base", "padded", "more")}
    base, *models = (model(path, text, seed, 3 * seed) for seed, (path, text) in enumerate(tokens.items()))
    found = kinship_matrix(models, base, options=ComparisonOptions(vocab="shared"))
    np.testing.assert_allclose(found.values, expected(base, models, tokens), atol=1e-6)


def test_tokens_without_a_row_are_not_shared(tmp_path: Path) -> None:
    tokens: dict[Path, Sequence[str]] = {tmp_path / name: "abcdef" for name in ("base", "one", "two")}
    base, *models = (model(path, text, seed, seed) for seed, (path, text) in enumerate(tokens.items()))
    for path in tokens:  # a padding token that no embedding was enlarged for, or only some
        content = json.loads((path / "tokenizer.json").read_text())
        content["added_tokens"].append({"id": 6, "content": "<pad>"})
        write_tokenizer(path, content)
    found = kinship_matrix(models, base, options=ComparisonOptions(vocab="shared"))
    np.testing.assert_allclose(found.values, expected(base, models, tokens), atol=1e-6)


def test_equal_vocabularies_are_compared_whole(tmp_path: Path) -> None:
    folders = [model(tmp_path / name, "abcd", seed, padding=2) for seed, name in enumerate(("base", "a", "b"))]
    shared, same = (
        kinship_matrix(folders[1:], folders[0], options=ComparisonOptions(vocab=vocab)) for vocab in ("shared", "same")
    )
    np.testing.assert_array_equal(shared.values, same.values)
    assert shared.left_out == {}


def test_only_what_is_wanted_is_reported(tmp_path: Path) -> None:
    base, grown = model(tmp_path / "base", "abcd", 0), model(tmp_path / "grown", "abcdef", 1)
    found = kinship_matrix([grown], base, options=ComparisonOptions(vocab="shared", exclude="embed"))
    assert found.left_out[EMBEDDING] == "excluded by 'embed'"


def test_a_tied_head_is_still_left_out(tmp_path: Path) -> None:
    base, once = model(tmp_path / "base", "abcd", 0), model(tmp_path / "once", "abcdef", 1, head=False)
    assert kinship_matrix([once], base, options=ComparisonOptions(vocab="shared")).left_out[HEAD].startswith("tied to")


def test_euclidean_distances_of_close_models_see_shared_rows_only(tmp_path: Path) -> None:
    base, grown = model(tmp_path / "base", "abcd", 0), model(tmp_path / "grown", "dcbaef", 1)
    tensors = load_file(grown / "model.safetensors")
    near = model(tmp_path / "near", "dcbaef", 1)
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, near / "model.safetensors")
    found = kinship_matrix([grown, near], base, "euclidean", options=ComparisonOptions(vocab="shared"))
    assert found.values[0, 1] == pytest.approx(1e-3 * np.sqrt((4 + 4 + 3) * WIDTH), rel=1e-3)


def test_a_base_with_an_adapter_has_its_tokens(tmp_path: Path) -> None:
    base, other = model(tmp_path / "base", "abcd", 0), model(tmp_path / "other", "dabcef", 1)
    factors = {
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.randn(2, WIDTH),
        "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.randn(3, 2),
    }
    adapted = f"{other}+{write(tmp_path / 'adapter', factors)}"
    with open_checkpoint(base) as one, open_checkpoint(adapted) as two, open_checkpoint(other) as plain:
        (_, cut), _ = share_vocabulary([one, two])
        torch.testing.assert_close(cut.tensor(EMBEDDING), plain.tensor(EMBEDDING)[[1, 2, 3, 0]])
        torch.testing.assert_close(cut.tensor(LAYER), two.tensor(LAYER))
    assert kinship_matrix([adapted, other], base, options=ComparisonOptions(vocab="shared")).tensors == 3


def test_the_plan_counts_shared_rows(tmp_path: Path) -> None:
    base, grown = model(tmp_path / "base", "abcd", 0), model(tmp_path / "grown", "abcxyz", 1)
    plan = preflight([grown], base, options=ComparisonOptions(vocab="shared"))
    assert (plan.tensors, plan.parameters) == (3, (3 + 3 + 3) * WIDTH)
    assert plan.bytes_to_read == 2 * 4 * plan.parameters


def test_any_range_of_selected_rows_is_read_right(tmp_path: Path) -> None:
    rows = np.array([4, 5, 6, 0, 9, 8, 8, 1])
    with open_checkpoint(model(tmp_path / "base", "abcdefghij", 0)) as whole:
        chosen = SelectedRows(whole, {EMBEDDING: rows})
        want = whole.tensor(EMBEDDING)[rows]
        assert torch.equal(chosen.tensor(EMBEDDING), want)
        for start in range(want.numel()):
            for count in (1, 3, 4, 11):
                assert torch.equal(
                    chosen.read(EMBEDDING, start, min(count, want.numel() - start)),
                    want.flatten()[start : start + count],
                )
        assert chosen.digest != whole.digest


def test_vocabularies_of_unigram_models_are_lists(tmp_path: Path) -> None:
    folder = model(tmp_path / "base", "abcd", 0)
    added = [{"id": 2, "content": "</s>"}]
    write_tokenizer(folder, {"model": {"vocab": [["<s>", 0.0], ["▁a", -1.5]]}, "added_tokens": added})
    assert read_vocabulary(open_checkpoint(folder)) == {"<s>": 0, "▁a": 1, "</s>": 2}
    write_tokenizer(folder, {"model": {"vocab": {"x": 0}}})
    assert read_vocabulary(open_checkpoint(folder)) == {"x": 0}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": []},
        {"model": {"vocab": "abc"}},
        {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {"a": 2**70}}},
        {"model": {"vocab": {"a": True}}},
        {"model": {"vocab": {"a": "0"}}},
        {"model": {"vocab": [["a"]]}},
        {"model": {"vocab": [1]}},
        {"model": {"vocab": {}}, "added_tokens": [{"content": "a"}]},
        {"model": {"vocab": {}}, "added_tokens": {"a": 1}},
        {"model": {"vocab": [[["a"], 0.0]]}},
    ],
)
def test_a_tokenizer_of_another_form_is_malformed(tmp_path: Path, content: Any) -> None:
    base, other = model(tmp_path / "base", "abcd", 0), model(tmp_path / "other", "abcdef", 1)
    write_tokenizer(other, content)
    with pytest.raises(MalformedCheckpoint, match=r"other/tokenizer\.json"):
        kinship_matrix([other], base, options=ComparisonOptions(vocab="shared"))


def test_what_cannot_be_matched_is_refused(tmp_path: Path) -> None:
    base, other = model(tmp_path / "base", "abcd", 0), model(tmp_path / "other", "uvwxyz", 1)

    def refusal(*models: Path, vocab: str = "shared") -> KinshipError:
        with pytest.raises(KinshipError) as found:
            kinship_matrix(list(models), base, options=ComparisonOptions(vocab=vocab))
        return found.value

    assert isinstance(refusal(other), MismatchedModels)
    assert "no token" in refusal(other).message
    single = refusal(other / "model.safetensors")
    (other / "tokenizer.json").unlink()
    for error in (single, refusal(other)):
        assert isinstance(error, UnsupportedCheckpoint)
        assert "has no tokenizer.json" in error.message
        assert "--vocab same" in error.hint
    assert isinstance(refusal(other, vocab="other"), InvalidConfig)


# Without being asked for: rows that do not belong together are noted


def test_tokens_that_moved_are_noted(tmp_path: Path) -> None:
    base = model(tmp_path / "base", "abcdefgh", 0)
    texts = {"swapped": "bacdefgh", "also": "bacdefgh", "regrown": "abcdefgh"}
    swapped, also, regrown = (model(tmp_path / name, text, seed) for seed, (name, text) in enumerate(texts.items(), 1))
    (note,) = compare([swapped, also, regrown], base).notes
    assert note.startswith(f"{swapped}, {also}: 2 of 8 tokens have another id than in {base}, ")
    assert "--vocab shared" in note
    assert compare([swapped, also], base, options=ComparisonOptions(vocab="shared")).notes == ()
    assert compare([also], swapped).notes == ()


def test_nothing_is_noted_where_rows_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = (model(tmp_path / name, "abcd", seed) for seed, name in enumerate(("base", "other")))
    grown, turned = model(tmp_path / "grown", "dcbaef", 2), model(tmp_path / "turned", "dcba", 3)
    assert len(compare([turned], base).notes) == 1
    (left_out,) = compare([grown], base).notes
    assert "left out" in left_out
    assert compare([turned], base, options=ComparisonOptions(include="mlp")).notes == ()
    assert compare([model(tmp_path / "renamed", "abXd", 6)], base).notes == ()  # a reserved token put to use
    bare = model(tmp_path / "bare", "abcd", 4)
    (bare / "tokenizer.json").unlink()
    assert compare([bare, turned / "model.safetensors"], base).notes == ()
    content = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(content | {"version": "1.0"}, indent=2))
    assert compare([other], base).notes == ()
    equal = model(tmp_path / "equal", "abcd", 5)
    monkeypatch.setattr(vocabulary, "read_vocabulary", None)  # files of equal bytes are not parsed
    assert compare([equal], base).notes == ()


def test_models_are_compared_with_the_first_that_has_a_tokenizer(tmp_path: Path) -> None:
    texts = {"base": "abcd", "one": "abcd", "two": "dcab"}
    base, one, two = (model(tmp_path / name, text, seed) for seed, (name, text) in enumerate(texts.items()))
    (base / "tokenizer.json").unlink()
    (note,) = compare([one, two], base).notes
    assert note.startswith(f"{two}: 4 of 4 tokens have another id than in {one}, ")


def test_a_damaged_tokenizer_is_noted_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, other = model(tmp_path / "base", "abcd", 0), model(tmp_path / "other", "abcd", 1)
    wanted = kinship_matrix([other], base)

    def note() -> str:
        found = compare([other], base)
        np.testing.assert_array_equal(found.matrix().values, wanted.values)
        (only,) = found.notes
        return only

    (other / "tokenizer.json").write_text("{")
    assert note().startswith(f"{other}: whether embeddings were compared token by token is not known. ")
    assert "is not valid JSON" in note()
    write_tokenizer(other, {"model": {"vocab": 7}})
    assert "does not give its tokens" in note()
    (other / "tokenizer.json").unlink()
    (other / "tokenizer.json").mkdir()
    assert "is not a file but a folder" in note()
    monkeypatch.setattr(vocabulary, "MAX_TOKENIZER_BYTES", 300)
    (other / "tokenizer.json").rmdir()
    (other / "tokenizer.json").write_text(" " * 301)
    assert "has more than 300 bytes" in note()
