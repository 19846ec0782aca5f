from typing import Any

import pytest
from pydantic import ValidationError

from search.strategies.settings import StrategySettings


def parsed(content: dict[str, Any]) -> StrategySettings:
    return StrategySettings.model_validate(content)


@pytest.mark.parametrize("content", [{"variant": "vanilla"}, {"variant": "random", "partner_pool": "all", "k": 4}])
def test_a_partner_rule_without_a_name_means_topk(content: dict[str, Any]) -> None:
    assert parsed(content).name == "topk"


def test_a_name_alone_is_a_strategy() -> None:
    assert StrategySettings.model_validate("niches") == parsed({"name": "niches"})
    with pytest.raises(ValidationError, match="'topk', 'pairs'"):
        StrategySettings.model_validate("nichs")


def test_settings_survive_being_written_down_whole() -> None:
    for content in ({"variant": "random"}, {"name": "optuna", "sampler": "cmaes"}, {"name": "auto", "batch": 2}):
        assert parsed(parsed(content).model_dump(mode="json")) == parsed(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "soup", "sampler": "gp"}, "'soup' has no setting 'sampler'; it belongs to: optuna"),
        ({"name": "auto", "variant": "random"}, "belongs to: topk"),
        ({"name": "optuna", "scale_range": (2.0, 1.0)}, "the smaller first"),
        ({"name": "random", "scale_range": (0.0, float("inf"))}, "finite"),
        ({"name": "bayesian", "scale_range": (float("nan"), 1.0)}, "finite"),
        ({"name": "auto", "scale_range": (0.0, 1e300)}, "from -1000 to 1000"),
        ({"name": "best"}, "'topk', 'pairs'"),
    ],
)
def test_what_does_not_fit_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parsed(content)
