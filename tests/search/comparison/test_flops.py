"""Operations are counted as a pencil counts them."""

import pytest
import torch
from torch.nn import functional

from merging.merge import planned
from merging.recipe.schema import parse_recipe
from search.comparison.flops import counted, merge_flops
from tests.conftest import MakeModel

N = 24 * 16  # elements of the matrix


def test_products_attention_decompositions_and_elements() -> None:
    x, w, bias = torch.randn(5, 7), torch.randn(3, 7, requires_grad=True), torch.randn(3)
    with counted() as layer:
        functional.linear(x, w, bias).sum().backward()  # type: ignore[no-untyped-call]
    with counted() as attention:
        q = torch.randn(2, 4, 6, 8)
        functional.scaled_dot_product_attention(q, q, q)
    with counted() as eigh:
        torch.linalg.eigh(torch.eye(11))
    with counted() as elements:
        (x * x + 1).sum()
    with counted() as moved:
        x.T.contiguous().view(7, 5).clone().sort().values.unsqueeze(0)
    assert (
        layer.flops == 2 * 5 * 7 * 3 + 5 * 3 + 2 * 5 * 7 * 3
    )  # forward, the sum, and the product for the gradient of w
    assert attention.flops == 2 * (2 * 2 * 4 * 6 * 6 * 8)
    assert eigh.flops == 9 * 11**3
    assert elements.flops == 3 * 35
    assert moved.flops == 0


@pytest.mark.parametrize(
    ("method", "parameters", "flops"),
    [
        # base and two models: three multiply-adds an element
        ("task_arithmetic", {"lambda": 0.5, "weight": 1.0}, 6 * N),
        # two models, no base
        ("linear", {"weight": 1.0}, 4 * N),
        # six products of three rows, and two differences, beside the sum
        ("model_stock", {}, (6 + 12 + 2) * N),
        # compiled: a multiply-add for each model; the base is subtracted from both and added
        ("ties", {"density": 0.5, "weight": 1.0}, (4 + 3) * N),
    ],
)
def test_what_is_made_without_torch_goes_by_formula(
    make_model: MakeModel, method: str, parameters: dict[str, float], flops: int
) -> None:
    models = [str(make_model(name, shapes={"w": (24, 16)})) for name in ("base", "a", "b")]
    content = {"merge_method": method, "models": [{"model": each} for each in models[1:]], "parameters": parameters}
    if method != "linear":
        content["base_model"] = models[0]
    with planned(parse_recipe(content)) as plan:
        assert merge_flops(plan) == flops


def test_of_tensors_alike_one_is_made_and_counts_for_all(make_model: MakeModel) -> None:
    def flops(layers: int) -> int:
        shapes: dict[str, tuple[int, ...]] = {f"w{number}": (24, 16) for number in range(layers)}
        models = [
            str(make_model(f"{name}{layers}", seed, shapes=shapes)) for seed, name in enumerate(("base", "a", "b"))
        ]
        content = {"merge_method": "tsv", "base_model": models[0], "models": [{"model": each} for each in models[1:]]}
        with planned(parse_recipe(content)) as plan:
            return merge_flops(plan)

    assert flops(3) == 3 * flops(1) > 0
