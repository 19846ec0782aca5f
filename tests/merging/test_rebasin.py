"""A permuted network must compute the same; a known permutation must be found again."""

from collections.abc import Sequence
from itertools import pairwise, permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights, UnsupportedCheckpoint
from merging.rebasin.matching import Order, Slot, Symmetry, align, permute, similarity
from merging.rebasin.symmetries import llama_symmetries, mlp_symmetries

Network = dict[str, torch.Tensor]


def shuffled(symmetries: Sequence[Symmetry], seed: int) -> dict[str, Order]:
    """A random order of each symmetry: of its units, and of the members within each."""
    random = np.random.default_rng(seed)
    return {
        symmetry.name: np.concatenate(
            [
                unit * symmetry.members + random.permutation(symmetry.members)
                for unit in random.permutation(symmetry.units)
            ]
        )
        for symmetry in symmetries
    }


# Plain networks


def mlp(sizes: Sequence[int], seed: int = 0, bias: bool = True) -> Network:
    generator = torch.Generator().manual_seed(seed)
    network = {}
    for index, (before, after) in enumerate(pairwise(sizes)):
        network[f"{index}.weight"] = torch.randn(after, before, generator=generator)
        if bias:
            network[f"{index}.bias"] = torch.randn(after, generator=generator)
    return network


def run(network: Network, inputs: torch.Tensor) -> torch.Tensor:
    depth = 1 + max(int(name.split(".")[0]) for name in network)
    for index in range(depth):
        inputs = inputs.to(network["0.weight"].dtype) @ network[f"{index}.weight"].T
        inputs = inputs + network.get(f"{index}.bias", torch.zeros(()))
        inputs = inputs.relu() if index < depth - 1 else inputs
    return inputs


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 12), min_size=3, max_size=6), bias=st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_permuted_mlp_computes_the_same(seed: int, sizes: list[int], bias: bool) -> None:
    network = {name: tensor.double() for name, tensor in mlp(sizes, seed, bias).items()}
    symmetries = mlp_symmetries(network, [str(index) for index in range(len(sizes) - 1)])
    permuted = permute(network, symmetries, shuffled(symmetries, seed))
    inputs = torch.randn(7, sizes[0], generator=torch.Generator().manual_seed(seed)).double()
    torch.testing.assert_close(run(permuted, inputs), run(network, inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bias", [True, False])
def test_a_permuted_mlp_is_put_back_exactly(seed: int, bias: bool) -> None:
    network = mlp([6, 40, 30, 20, 4], seed, bias)
    symmetries = mlp_symmetries(network, ["0", "1", "2", "3"])
    permuted = permute(network, symmetries, shuffled(symmetries, seed))
    assert any(not torch.equal(permuted[name], network[name]) for name in network)
    back = permute(permuted, symmetries, align(network, permuted, symmetries))
    assert back.keys() == network.keys()
    assert all(torch.equal(back[name], network[name]) for name in network)


@pytest.mark.parametrize("seed", range(5))
def test_deep_networks_of_narrow_input_are_put_back_exactly(seed: int) -> None:
    """Where all layers have a say from the start, as in the paper, the search ends at about a third of the way."""
    network = mlp([2, 30, 30, 30, 2], seed, bias=False)
    symmetries = mlp_symmetries(network, ["0", "1", "2", "3"])
    permuted = permute(network, symmetries, shuffled(symmetries, seed))
    back = permute(permuted, symmetries, align(network, permuted, symmetries))
    assert all(torch.equal(back[name], network[name]) for name in network)


@pytest.mark.parametrize("size", [0.01, 0.1, 0.3])
def test_noise_does_not_hide_the_permutation(size: float) -> None:
    network = mlp([16, 40, 30, 10], 1)
    symmetries = mlp_symmetries(network, ["0", "1", "2"])
    orders = shuffled(symmetries, 1)
    generator = torch.Generator().manual_seed(2)
    noisy = {name: t + size * torch.randn(t.shape, generator=generator) for name, t in network.items()}
    found = align(network, permute(noisy, symmetries, orders), symmetries)
    for name, order in orders.items():
        np.testing.assert_array_equal(order[found[name]], np.arange(len(order)))


def test_a_single_hidden_layer_is_matched_to_the_optimum() -> None:
    """With one symmetry the assignment is the global optimum: compare with all 720 orders."""
    one, two = mlp([3, 6, 2], 3), mlp([3, 6, 2], 4)
    symmetries = mlp_symmetries(one, ["0", "1"])
    best = max(similarity(one, permute(two, symmetries, {"0": np.array(order)})) for order in permutations(range(6)))
    got = similarity(one, permute(two, symmetries, align(one, two, symmetries)))
    assert got == pytest.approx(best, rel=1e-12)


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 9), min_size=3, max_size=5))
@settings(deadline=None, max_examples=40)
def test_alignment_never_makes_networks_less_alike(seed: int, sizes: list[int]) -> None:
    one, two = mlp(sizes, seed), mlp(sizes, seed + 1)
    symmetries = mlp_symmetries(one, [str(index) for index in range(len(sizes) - 1)])
    orders = align(one, two, symmetries)
    assert similarity(one, permute(two, symmetries, orders)) >= similarity(one, two)
    for symmetry in symmetries:
        assert sorted(orders[symmetry.name]) == list(range(symmetry.units))


@pytest.mark.parametrize("seed", [6, 56, 57, 59])
def test_where_the_search_ends_lower_than_it_began_all_stays_in_place(seed: int) -> None:
    one = mlp([2, 3, 3, 2], seed)
    generator = torch.Generator().manual_seed(seed + 5000)
    two = {name: tensor + torch.randn(tensor.shape, generator=generator) for name, tensor in one.items()}
    orders = align(one, two, mlp_symmetries(one, ["0", "1", "2"]))
    assert all((order == np.arange(3)).all() for order in orders.values())


@pytest.mark.parametrize("seed", range(8))
def test_no_exchange_of_two_units_would_do_better(seed: int) -> None:
    one, two = mlp([3, 8, 8, 8, 3], seed), mlp([3, 8, 8, 8, 3], seed + 50)
    symmetries = mlp_symmetries(one, ["0", "1", "2", "3"])
    orders = align(one, two, symmetries)
    best = similarity(one, permute(two, symmetries, orders))
    for name, order in orders.items():
        for i, j in product(range(8), repeat=2):
            other = order.copy()
            other[[i, j]] = order[[j, i]]
            assert similarity(one, permute(two, symmetries, orders | {name: other})) <= best + 1e-4


def test_units_of_one_model_stay_in_place() -> None:
    one = mlp([4, 10, 8, 3])
    symmetries = mlp_symmetries(one, ["0", "1", "2"])
    for order in align(one, {name: tensor.clone() for name, tensor in one.items()}, symmetries).values():
        np.testing.assert_array_equal(order, np.arange(len(order)))


def test_zero_weights_stay_in_place() -> None:
    zero = {name: torch.zeros_like(tensor) for name, tensor in mlp([3, 5, 2]).items()}
    symmetries = mlp_symmetries(zero, ["0", "1"])
    np.testing.assert_array_equal(align(zero, zero, symmetries)["0"], np.arange(5))


def test_alignment_is_the_same_every_time() -> None:
    one, two = mlp([5, 30, 30, 5], 5), mlp([5, 30, 30, 5], 6)
    symmetries = mlp_symmetries(one, ["0", "1", "2"])
    first, second = (align(one, two, symmetries) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.parametrize("seed", range(20))
def test_members_are_matched_within_the_best_unit(seed: int) -> None:
    """Two units of three members; against every order that keeps members together."""
    generator = torch.Generator().manual_seed(seed)
    symmetry = Symmetry("heads", 2, (Slot("shared", 0, 2),), 3, (Slot("own", 0, 2), Slot("out", 1, 2)))
    shapes = {"shared": (4, 5), "own": (12, 5), "out": (5, 12)}
    one, two = ({n: torch.randn(s, generator=generator) for n, s in shapes.items()} for _ in range(2))
    legal = [
        np.array([3 * unit + member for unit, inside in zip(units, members, strict=True) for member in inside])
        for units in permutations(range(2))
        for members in product(permutations(range(3)), repeat=2)
    ]
    best = max(similarity(one, permute(two, [symmetry], {"heads": order})) for order in legal)
    order = align(one, two, [symmetry])["heads"]
    assert similarity(one, permute(two, [symmetry], {"heads": order})) == pytest.approx(best, rel=1e-6)
    assert any((order == other).all() for other in legal)


# Real models


def tiny(kv_heads: int, tied: bool = False, kind: str = "llama", seed: int = 0) -> torch.nn.Module:
    import transformers

    torch.manual_seed(seed)
    sizes = {"vocab_size": 48, "hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 3, "head_dim": 8}
    sizes |= {"num_attention_heads": 6, "num_key_value_heads": kv_heads, "tie_word_embeddings": tied}
    config, model = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    }[kind]
    if kind == "qwen2":
        sizes |= {"hidden_size": 48}  # its heads are hidden_size / num_attention_heads wide
    extra = {"attention_bias": True, "mlp_bias": True} if kind == "llama" else {}
    net = model(config(**sizes, **extra)).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # norms and biases are constant when new, which would hide mistakes
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def weights(model: torch.nn.Module) -> Network:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


MODELS = [("llama", 6, False), ("llama", 2, False), ("llama", 1, True), ("qwen2", 2, True), ("qwen3", 3, False)]
MODELS += [("gemma2", 3, True), ("mistral", 2, False)]


@pytest.mark.parametrize(("kind", "kv_heads", "tied"), MODELS)
def test_a_permuted_model_computes_the_same(kind: str, kv_heads: int, tied: bool) -> None:
    model = tiny(kv_heads, tied, kind)
    before = weights(model)
    symmetries = llama_symmetries(before, 6, kv_heads)
    permuted = permute(before, symmetries, shuffled(symmetries, 8))
    moved = [
        name for name in before if name.endswith(".weight") and not name.endswith(("q_norm.weight", "k_norm.weight"))
    ]
    assert not any(torch.equal(permuted[name], before[name]) for name in moved)
    inputs = torch.arange(30).reshape(2, 15)
    with torch.no_grad():
        want = model(inputs).logits
        for name, parameter in model.named_parameters():
            parameter.copy_(permuted[name])
        got = model(inputs).logits
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert want.std() > 0.1


@pytest.mark.parametrize(("kind", "kv_heads", "tied"), MODELS)
@pytest.mark.parametrize("residual", [True, False])
def test_a_permuted_model_is_put_back_exactly(kind: str, kv_heads: int, tied: bool, residual: bool) -> None:
    network = weights(tiny(kv_heads, tied, kind))
    symmetries = llama_symmetries(network, 6, kv_heads, residual)
    assert any(symmetry.name == "residual" for symmetry in symmetries) == residual
    permuted = permute(network, symmetries, shuffled(symmetries, 9))
    back = permute(permuted, symmetries, align(network, permuted, symmetries))
    assert all(torch.equal(back[name], network[name]) for name in network)


def test_a_fine_tuned_permuted_model_is_put_back() -> None:
    network = weights(tiny(2))
    generator = torch.Generator().manual_seed(10)
    tuned = {name: t + 0.02 * torch.randn(t.shape, generator=generator) for name, t in network.items()}
    symmetries = llama_symmetries(network, 6, 2)
    permuted = permute(tuned, symmetries, shuffled(symmetries, 10))
    back = permute(permuted, symmetries, align(network, permuted, symmetries))
    assert all(torch.equal(back[name], tuned[name]) for name in network)


def test_every_weight_of_a_model_takes_part() -> None:
    network = weights(tiny(2))
    slots = {(slot.tensor, slot.axis) for s in llama_symmetries(network, 6, 2) for slot, _ in s.placed()}
    free = {("model.embed_tokens.weight", 0), ("lm_head.weight", 0)}  # tokens cannot change places
    assert slots == {(name, axis) for name, tensor in network.items() for axis in range(tensor.dim())} - free


# What is refused


def test_different_tensors_are_refused() -> None:
    one = mlp([2, 3, 1])
    symmetries = mlp_symmetries(one, ["0", "1"])
    with pytest.raises(MismatchedModels, match=r"'1\.bias'"):
        align(one, {name: tensor for name, tensor in one.items() if name != "1.bias"}, symmetries)
    with pytest.raises(MismatchedModels, match=r"'0\.weight'.*\(3, 2\) and \(2, 3\)"):
        align(one, one | {"0.weight": torch.ones(2, 3)}, symmetries)


def test_nan_is_refused() -> None:
    one = mlp([2, 3, 1])
    broken = one | {"0.bias": torch.tensor([0.0, torch.nan, 0.0])}
    with pytest.raises(NonFiniteWeights, match=r"'0\.bias'"):
        align(one, broken, mlp_symmetries(one, ["0", "1"]))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.mlp.experts.3.up_proj.weight", (4, 4)),
        ("model.layers.0.self_attn.qkv_proj.weight", (4, 4)),
        ("model.layers.0.mlp.up_proj.weight", (2, 4, 4)),
        ("visual.patch.weight", (4, 4)),
    ],
)
def test_unknown_tensors_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=name.replace(".", r"\.")):
        llama_symmetries(weights(tiny(2)) | {name: torch.ones(shape)}, 6, 2)


def test_norms_over_all_heads_are_refused() -> None:
    """OLMo 2 normalises queries across heads: its norm would have to be permuted along."""
    with pytest.raises(UnsupportedCheckpoint, match="q_norm"):
        llama_symmetries(weights(tiny(2)) | {"model.layers.0.self_attn.q_norm.weight": torch.ones(48)}, 6, 2)


def test_numbers_of_heads_that_do_not_fit_are_refused() -> None:
    network = weights(tiny(2))
    with pytest.raises(InvalidConfig, match="6 attention heads cannot share 4"):
        llama_symmetries(network, 6, 4)
    with pytest.raises(InvalidConfig, match="5 heads"):
        llama_symmetries(network, 5, 1)
