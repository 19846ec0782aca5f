from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from kinship.checkpoints.module_kinds import module_kind
from kinship.checkpoints.tensor_names import layer_index, layer_label
from kinship.errors import InvalidConfig
from kinship.measures.alignment import Selection
from kinship.measures.comparison import ComparisonOptions, compare
from kinship.measures.preflight import preflight
from tests.conftest import MakeModel


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("model.embed_tokens.weight", "embeddings", "embeddings"),
        ("model.layers.10.self_attn.q_proj.weight", "layer 10", "attention q"),
        ("model.layers.2.post_attention_layernorm.weight", "layer 2", "norms"),
        ("transformer.h.3.attn.c_attn.weight", "layer 3", "attention qkv"),
        ("transformer.h.3.mlp.c_proj.weight", "layer 3", "mlp"),
        ("gpt_neox.layers.1.attention.query_key_value.weight", "layer 1", "attention qkv"),
        ("gpt_neox.layers.3.attention.dense.weight", "layer 3", "attention o"),
        ("bert.encoder.layer.3.attention.self.query.weight", "layer 3", "attention q"),
        ("lm_head.weight", "head", "head"),
        ("conv1.weight", "other", "other"),
    ],
)
def test_names_tell_layer_and_kind(name: str, layer: str, kind: str) -> None:
    assert (layer_label(name), module_kind(name)) == (layer, kind)
    assert (layer_index(name) is None) == (not layer.startswith("layer"))


@pytest.fixture
def folders(make_model: MakeModel) -> list[Path]:
    base = make_model("base")
    return [base, *(make_model(name, seed, base) for seed, name in enumerate("abc", 1))]


@pytest.mark.parametrize("metric", ["pcc", "cosine", "euclidean"])
@pytest.mark.parametrize("by", ["layer", "module", "tensor"])
def test_groups_agree_with_float64(folders: list[Path], by: str, metric: str) -> None:
    base, *models = (load_file(folder / "model.safetensors") for folder in folders)
    label_of = {"layer": layer_label, "module": module_kind, "tensor": lambda name: name}[by]
    groups = compare(folders[1:], folders[0], metric).by_group(by, metric)
    assert set(groups) == {label_of(name) for name in base}
    for label, matrix in groups.items():
        names = [name for name in sorted(base) if label_of(name) == label]
        vectors = [
            np.concatenate([(m[name].astype(np.float64) - base[name]).ravel() for name in names]) for m in models
        ]
        expected = {
            "pcc": lambda x, y: np.corrcoef(x, y)[0, 1],
            "cosine": lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y),
            "euclidean": lambda x, y: np.linalg.norm(x - y),
        }[metric]
        want = [[expected(x, y) for y in vectors] for x in vectors]
        np.testing.assert_allclose(matrix.values, want, atol=1e-6)


def test_layers_come_in_their_order(make_model: MakeModel) -> None:
    shapes = {f"model.layers.{index}.mlp.up_proj.weight": (3, 4) for index in range(12)}
    base = make_model("base", shapes=shapes)
    model = make_model("a", 1, base, shapes=shapes)
    groups = compare([model], base).by_group("layer")
    assert list(groups) == [f"layer {index}" for index in range(12)]


def test_unknown_grouping_is_refused(folders: list[Path]) -> None:
    with pytest.raises(InvalidConfig, match="colour"):
        compare(folders[1:], folders[0]).by_group("colour")


def test_relative_norms(folders: list[Path]) -> None:
    def flat(folder: Path) -> np.ndarray:
        tensors = load_file(folder / "model.safetensors")
        return np.concatenate([tensors[name].astype(np.float64).ravel() for name in sorted(tensors)])

    norms = compare(folders[1:], folders[0]).relative_norms()
    base = flat(folders[0])
    for folder in folders[1:]:
        want = np.linalg.norm(flat(folder) - base) / np.linalg.norm(base)
        assert norms[str(folder)] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("closeness", [1e-1, 1e-3, 1e-5])
def test_distances_of_close_pairs_keep_six_digits(make_model: MakeModel, closeness: float) -> None:
    base = make_model("base")
    one = make_model("one", 1, base)
    other = make_model("other", 2, one, size=0.02 * closeness)
    found = compare([one, other], base, "euclidean").matrix("euclidean")
    tensors = [load_file(folder / "model.safetensors") for folder in (one, other)]
    want = np.sqrt(sum(((tensors[0][n].astype(np.float64) - tensors[1][n]) ** 2).sum() for n in tensors[0]))
    assert found[str(one), str(other)] == pytest.approx(want, rel=1e-6)


def test_selection_by_patterns(folders: list[Path]) -> None:
    only = compare(folders[1:], folders[0], options=ComparisonOptions(include="self_attn"))
    assert all("self_attn" in name for name in only.table.names)
    assert "model.norm.weight" in only.left_out
    without = compare(folders[1:], folders[0], options=ComparisonOptions(exclude=r"^model\.embed"))
    assert set(without.left_out) == {"model.embed_tokens.weight"}
    with pytest.raises(InvalidConfig, match="regular expression"):
        Selection(include="(")


def test_plan_tells_what_the_comparison_reads(folders: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    plan = preflight(folders[1:], folders[0])
    compare(folders[1:], folders[0], progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (plan.bytes_to_read, plan.bytes_to_read)
    assert plan.models == 3
    assert plan.seconds > 0
