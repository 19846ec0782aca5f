from typing import get_args

import pytest

from search.config import parse_config
from search.strategies.optuna_search import _sampler
from search.strategies.settings import StrategySettings

SAMPLERS = get_args(StrategySettings.model_fields["sampler"].annotation)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_seed_of_a_run_file_is_one(name: str) -> None:
    run = {"base": "b", "founders": ["a", "c"], "evaluate": {"tasks": ["t"]}, "seed": 2**63 - 1}
    assert _sampler(name, parse_config(run).seed)
