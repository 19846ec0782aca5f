from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix, open_checkpoint
from kinship.errors import UnsupportedCheckpoint
from tests.conftest import MakeModel

P = "model.layers.0.self_attn.q_proj"
CODES = torch.zeros(4, 4, dtype=torch.uint8)
INTEGERS = torch.zeros(4, 4, dtype=torch.int32)


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({f"{P}.qweight": INTEGERS, f"{P}.qzeros": INTEGERS, f"{P}.scales": torch.ones(4)}, id="gptq, awq"),
        pytest.param({f"{P}.weight": CODES, f"{P}.weight.absmax": torch.ones(4)}, id="bitsandbytes"),
        pytest.param({f"{P}.weight": CODES, f"{P}.weight.quant_state.bitsandbytes__nf4": CODES}, id="nf4"),
        pytest.param({f"{P}.weight": CODES.to(torch.int8), f"{P}.SCB": torch.ones(4)}, id="int8"),
        pytest.param({f"{P}.weight_packed": INTEGERS, f"{P}.weight_scale": torch.ones(4)}, id="compressed"),
        pytest.param(
            {f"{P}.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), f"{P}.weight_scale_inv": torch.ones(1, 1)},
            id="fp8 in blocks",
        ),
    ],
)
@pytest.mark.parametrize("single", [True, False])
def test_quantised_weights_are_known_by_their_tensors(
    tmp_path: Path, tensors: dict[str, torch.Tensor], single: bool
) -> None:
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(copies | {"model.norm.weight": torch.ones(4)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match="is quantised") as refusal:
        open_checkpoint(tmp_path / "model.safetensors" if single else tmp_path)
    assert "dequantise" in refusal.value.hint


def test_scales_of_other_kinds_are_weights(tmp_path: Path) -> None:
    tensors = {name: torch.ones(4) for name in ("block.scales", "logit_scale", "attn.weight", "attn.weight_scale")}
    save_file(tensors, tmp_path / "model.safetensors")
    assert set(open_checkpoint(tmp_path).tensors) == set(tensors)


@pytest.mark.parametrize("name", ["model-Q4_K_M.gguf", "model.safetensors", "weights.bin"])
def test_gguf_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    for reference in (tmp_path / name, tmp_path):
        if reference == tmp_path and name.endswith(".bin"):
            continue
        with pytest.raises(UnsupportedCheckpoint, match="GGUF") as refusal:
            open_checkpoint(reference)
        assert "gguf_file" in refusal.value.hint


def test_gguf_beside_safetensors_does_not_matter(make_model: MakeModel) -> None:
    folder = make_model("model")
    (folder / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    assert open_checkpoint(folder).tensors


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("metric", ["pcc", "cosine", "euclidean"])
def test_plain_fp8_is_compared_as_the_numbers_it_stands_for(
    make_model: MakeModel, tmp_path: Path, dtype: torch.dtype, metric: str
) -> None:
    base = make_model("base", dtype=dtype)
    coarse = [make_model(f"c{seed}", seed, base, dtype=dtype, size=0.5) for seed in (1, 2)]
    fine = []
    for folder in (base, *coarse):
        wide = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        fine.append(tmp_path / f"{folder.name}.safetensors")
        save_file(wide, fine[-1])
    other = make_model("other", 3, fine[0].with_suffix(""), size=0.5)
    found = kinship_matrix([*coarse, other], base, metric)
    wanted = kinship_matrix([*fine[1:], other], fine[0], metric)
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-6, atol=1e-7)
    assert found.tensors == 6
