"""Whole models, in memory and from files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights, OutputExists
from merging.data_driven import run
from merging.data_driven.batches import Batch, padded
from merging.data_driven.diagonals import fisher_diagonal
from merging.data_driven.grams import input_grams
from merging.data_driven.run import fisher_merge, fisher_statistics, gram_statistics, regmean_merge
from merging.data_driven.statistics import Statistics

Inputs = Callable[..., torch.Tensor]
Networks = Callable[..., nn.Module]
MakeLlama = Callable[..., Path]

DOCUMENTS: list[Batch] = [padded([[5, 6, 7, 8, 9, 10], [3, 4]]), padded([[11, 12, 13, 2]])]
OTHERS: list[Batch] = [padded([[20, 21, 22, 23, 24, 25, 26]])]


def fishers(*tensors: dict[str, torch.Tensor]) -> list[Statistics]:
    return [Statistics("fisher", own) for own in tensors]


# Fisher


def test_a_fisher_merge_is_the_kernel_on_every_tensor(network: Networks, inputs: Inputs) -> None:
    models = [network((5, 8, 3), seed=seed) for seed in range(3)]
    data = [[{"x": inputs(20, 5, seed=seed) * (seed + 1)}] for seed in range(3)]
    statistics = [fisher_diagonal(model, own, labels="exact") for model, own in zip(models, data, strict=True)]
    merged = dict(fisher_merge([model.state_dict() for model in models], statistics, weights=[1, 2, 3], floor=0.0))
    assert list(merged) == sorted(models[0].state_dict())
    norms = [torch.cat([own[name].flatten() for name in own]).norm() for own in statistics]
    for name, tensor in merged.items():
        shares = [w * own[name] / norm for w, own, norm in zip([1, 2, 3], statistics, norms, strict=True)]
        want = sum(share * model.state_dict()[name] for share, model in zip(shares, models, strict=True))
        torch.testing.assert_close(tensor, want / sum(shares))


def test_scale_counts_only_without_normalisation() -> None:
    models = [{"a": torch.tensor([0.0])}, {"a": torch.tensor([1.0])}]
    measured = fishers({"a": torch.tensor([1.0])}, {"a": torch.tensor([3.0])})
    assert dict(fisher_merge(models, measured))["a"].item() == pytest.approx(0.5)
    assert dict(fisher_merge(models, measured, normalize=False))["a"].item() == pytest.approx(0.75)
    huge = fishers({"a": torch.tensor([1e-25])}, {"a": torch.tensor([3e-25])})
    assert dict(fisher_merge(models, huge, normalize=False))["a"].item() == pytest.approx(0.75)


def test_tensors_without_statistics_are_averaged_and_what_one_model_lacks_is_zero() -> None:
    models = [{"a": torch.zeros(2), "b": torch.zeros(2)}, {"a": torch.ones(2), "b": torch.ones(2)}]
    measured = fishers({"a": torch.ones(2)}, {"a": torch.ones(2)})
    assert dict(fisher_merge(models, measured, weights=[1, 3]))["b"].tolist() == [0.75, 0.75]
    measured = fishers({"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.ones(2)})
    assert dict(fisher_merge(models, measured, floor=0.0))["b"].tolist() == [0.0, 0.0]


def test_the_mode_of_quadratic_losses_is_found_exactly(inputs: Inputs) -> None:
    """Losses with diagonal Hessians: the Fisher average is the minimum of their sum, an average is not."""
    curvature, minima = inputs(2, 6).square() + 0.1, inputs(2, 6, seed=1)
    models = [{"a": minimum} for minimum in minima]
    merged = dict(fisher_merge(models, fishers(*({"a": own} for own in curvature)), normalize=False))["a"]
    want = (curvature * minima).sum(0) / curvature.sum(0)
    torch.testing.assert_close(merged, want)


# RegMean


def test_regmean_of_linear_models_is_least_squares_on_all_data(inputs: Inputs) -> None:
    """Each model is fitted to its own data without noise; so is what they merge to, to all of it."""
    layers = [nn.Linear(5, 3, bias=False, dtype=torch.float64) for _ in range(2)]
    data = [inputs(30, 5, seed=seed) @ inputs(5, 5, seed=seed + 5) for seed in range(2)]
    for seed, layer in enumerate(layers):
        layer.load_state_dict({"weight": inputs(3, 5, seed=seed + 9)})
    statistics = [input_grams(layer, [{"input": x}]) for layer, x in zip(layers, data, strict=True)]
    models = [layer.state_dict() for layer in layers]
    merged = dict(regmean_merge(models, statistics, alpha=1.0))["weight"]
    outputs = torch.cat([layer(x) for layer, x in zip(layers, data, strict=True)]).detach()
    want = torch.linalg.lstsq(torch.cat(data), outputs).solution.T
    torch.testing.assert_close(merged, want)

    def loss(weight: torch.Tensor) -> float:
        return float((torch.cat(data) @ weight.T - outputs).square().sum())

    assert loss(merged) < 0.9 * loss((models[0]["weight"] + models[1]["weight"]) / 2)


def test_regmean_averages_all_but_the_weights_of_linear_layers(network: Networks, inputs: Inputs) -> None:
    models = [network((5, 8, 3), seed=seed) for seed in range(2)]
    statistics = [input_grams(model, [{"x": inputs(30, 5, seed=seed)}]) for seed, model in enumerate(models)]
    merged = dict(regmean_merge([model.state_dict() for model in models], statistics, weights=[1, 3]))
    for name, tensor in merged.items():
        mean = 0.25 * models[0].state_dict()[name] + 0.75 * models[1].state_dict()[name]
        assert torch.allclose(tensor, mean) == name.endswith("bias")


# Both


def test_models_that_are_one_model_merge_to_it(make_llama: MakeLlama, tmp_path: Path) -> None:
    with open_checkpoint(make_llama("one")) as model:
        fisher = fisher_statistics(model, DOCUMENTS, tmp_path / "fisher")
        grams = gram_statistics(model, DOCUMENTS, tmp_path / "grams")
        for merged in (fisher_merge([model] * 2, [fisher] * 2), regmean_merge([model] * 2, [grams] * 2)):
            tensors = dict(merged)
            assert list(tensors) == list(model.tensors)
            for name, tensor in tensors.items():
                torch.testing.assert_close(tensor, model.tensor(name))


def test_checkpoints_merge_as_their_tensors_do(make_llama: MakeLlama, tmp_path: Path) -> None:
    folders = [make_llama("one", seed=1), make_llama("two", seed=2)]
    with open_checkpoint(folders[0]) as one, open_checkpoint(folders[1]) as two:
        fisher = [
            fisher_statistics(model, data, tmp_path / f"fisher-{name}")
            for name, model, data in (("one", one, DOCUMENTS), ("two", two, OTHERS))
        ]
        merged = dict(fisher_merge([one, two], fisher))
        again = dict(fisher_merge([load_file(folder / "model.safetensors") for folder in folders], fisher))
        assert merged.keys() == again.keys()
        for name, tensor in merged.items():
            assert torch.equal(tensor, again[name])
            low, high = (
                torch.minimum(one.tensor(name), two.tensor(name)),
                torch.maximum(one.tensor(name), two.tensor(name)),
            )
            assert ((tensor >= low - 1e-6) & (tensor <= high + 1e-6)).all()
        with pytest.raises(MismatchedModels, match="measured of other weights"):
            fisher_merge([two, one], fisher)


def test_statistics_are_measured_once(make_llama: MakeLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fisher.safetensors"
    with open_checkpoint(make_llama("one")) as model, open_checkpoint(make_llama("two", seed=2)) as other:
        first = fisher_statistics(model, DOCUMENTS, path)
        bytes_of = path.read_bytes()
        monkeypatch.setattr(run, "load_causal_lm", lambda *_: pytest.fail("measured again"))
        again = fisher_statistics(model, list(DOCUMENTS), path)
        assert all(torch.equal(again[name], first[name]) for name in first)
        assert path.read_bytes() == bytes_of
        for change in (
            lambda: fisher_statistics(other, DOCUMENTS, path),
            lambda: fisher_statistics(model, OTHERS, path),
            lambda: fisher_statistics(model, DOCUMENTS, path, seed=1),
            lambda: fisher_statistics(model, DOCUMENTS, path, labels="given"),
            lambda: gram_statistics(model, DOCUMENTS, path),
        ):
            with pytest.raises(OutputExists, match=r"fisher\.safetensors"):
                change()


def test_one_seed_gives_the_same_file(make_llama: MakeLlama, tmp_path: Path) -> None:
    with open_checkpoint(make_llama("one")) as model:
        fisher_statistics(model, DOCUMENTS, tmp_path / "first", seed=3)
        torch.rand(5)
        fisher_statistics(model, DOCUMENTS, tmp_path / "second", seed=3)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_stream_that_can_be_read_only_once_is_refused(make_llama: MakeLlama, tmp_path: Path) -> None:
    with open_checkpoint(make_llama("one")) as model, pytest.raises(InvalidConfig, match="only once"):
        gram_statistics(model, iter(DOCUMENTS), tmp_path / "grams")
    assert not (tmp_path / "grams").exists()


def test_buffers_of_integers_are_copied_and_must_be_alike() -> None:
    models = [{"a": torch.tensor([value]), "steps": torch.tensor([3])} for value in (0.0, 2.0)]
    measured = fishers({"a": torch.ones(1)}, {"a": torch.ones(1)})
    assert dict(fisher_merge(models, measured))["steps"].tolist() == [3]
    models[1]["steps"] = torch.tensor([4])
    with pytest.raises(MismatchedModels, match="'steps'"):
        dict(fisher_merge(models, measured))


# What is refused


def test_what_does_not_belong_together_is_named(tmp_path: Path) -> None:
    models = [{"a": torch.zeros(2)}, {"a": torch.ones(2)}]
    fine = {"a": torch.ones(2)}
    with pytest.raises(InvalidConfig, match="1 statistics were given for 2 models"):
        fisher_merge(models, fishers(fine))
    with pytest.raises(InvalidConfig, match="model 1 are 'grams'; 'fisher' were expected"):
        fisher_merge(models, [Statistics("fisher", fine), Statistics("grams", fine)])
    with pytest.raises(InvalidConfig, match="weights"):
        fisher_merge(models, fishers(fine, fine), weights=[1.0])
    with pytest.raises(InvalidConfig, match="floor"):
        fisher_merge(models, fishers(fine, fine), floor=-1.0)
    with pytest.raises(InvalidConfig, match="alpha"):
        regmean_merge(models, [Statistics("grams", fine)] * 2, alpha=1.5)
    with pytest.raises(MismatchedModels, match="'z'"):
        fisher_merge(models, fishers(fine, fine | {"z": torch.ones(2)}))
    with pytest.raises(MismatchedModels, match=r"'a' have shape \[3\]; \[2\] was expected"):
        dict(fisher_merge(models, fishers({"a": torch.ones(3)}, {"a": torch.ones(3)})))
    with pytest.raises(MismatchedModels, match=r"\[2, 2\] was expected"):
        dict(regmean_merge([{"a": torch.ones(3, 2)}], [Statistics("grams", {"a": torch.ones(3, 3)})]))
    with pytest.raises(MismatchedModels, match="model 1 has the tensor 'b', model 0 has not"):
        fisher_merge([models[0], fine | {"b": torch.ones(2)}], fishers(fine, fine))


def test_statistics_that_mean_nothing_are_named() -> None:
    models = [{"a": torch.zeros(2)}, {"a": torch.ones(2)}]
    fine = {"a": torch.ones(2)}
    with pytest.raises(InvalidConfig, match="model 1 is zero throughout"):
        fisher_merge(models, fishers(fine, {"a": torch.zeros(2)}))
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(NonFiniteWeights, match="'a' of model 1"):
            fisher_merge(models, fishers(fine, {"a": torch.tensor([1.0, bad])}))
    with pytest.raises(NonFiniteWeights, match="'a' of the merge"):
        dict(fisher_merge([models[0], {"a": torch.tensor([1.0, float("inf")])}], fishers(fine, fine)))


def test_damaged_weights_are_named_when_they_are_measured(make_llama: MakeLlama, tmp_path: Path) -> None:
    folder = make_llama("one")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with open_checkpoint(folder) as model:
        with pytest.raises(NonFiniteWeights, match="batch 1"):
            fisher_statistics(model, DOCUMENTS, tmp_path / "fisher")
        with pytest.raises(NonFiniteWeights, match=r"'model\.layers\.1\.mlp\.down_proj\.weight' on batch 1"):
            gram_statistics(model, DOCUMENTS, tmp_path / "grams")
    assert not (tmp_path / "fisher").exists()
