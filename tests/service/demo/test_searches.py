"""The demo's searches: of every variant one, and the control as often as is asked for."""

from pathlib import Path

from service.demo.family import Family
from service.demo.searches import searches


def test_the_control_is_repeated_by_seed(tmp_path: Path) -> None:
    folder = tmp_path / "family"
    family = Family(
        folder, folder / "base", (folder / "a", folder / "b"), folder / "tasks", ("demo_reverse", "demo_max")
    )
    asked = list(searches(3))
    assert [search.label for search in asked] == ["vanilla", "kinship", "random", "random 2", "random 3"]
    assert [search.folder for search in asked][2:] == ["run-random", "run-random-2", "run-random-3"]
    configs = [search.config(family, tmp_path) for search in asked]
    assert [config.seed for config in configs] == [0, 0, 0, 1, 2]
    for config in configs:
        assert config.references == {"base": "family/base", "a": "family/a", "b": "family/b"}
        assert [task.task for task in config.evaluate.tasks] == ["demo_max"]
        assert config.strategy.partner_pool == "all"
    same = [config.model_dump(exclude={"seed", "strategy"}) for config in configs]
    assert all(content == same[0] for content in same)
