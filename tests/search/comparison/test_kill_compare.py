"""A comparison that is killed at any moment and started again ends with the same report."""

import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.answers import MethodComparison, read_comparison
from tests.forked import Forked
from tests.search.comparison.plans import content_of, write_plan

if TYPE_CHECKING:
    from service.demo.family import Family

pytestmark = pytest.mark.xdist_group("kill")


class Scene:
    """A plan whose documents go one by one, so that scoring can be hit, and what it says when nobody interferes."""

    def __init__(self, family: "Family", folder: Path) -> None:
        self.folder = folder
        content = content_of(family, number={})
        content["evaluate"] |= {"batch_size": 1, "limit": 16}
        self.plan = write_plan(folder / "plan.yml", content)
        self.calm = self.compare("calm")

    def compare(self, name: str) -> dict[str, Any]:
        from service.commands.compare import compare

        compare(str(self.plan), self.folder / name, None, as_json=True)
        return steady(read_comparison(self.folder / name / "comparison.json"))

    def kill_after(self, name: str, arms: int, wait: float) -> None:
        """SIGKILL once so many arms are kept, and a little later."""
        process = Forked("compare", self.plan, "--out", self.folder / name, "--json")
        store = self.folder / name / "comparison.sqlite"
        try:
            while process.poll() is None and kept(store) < arms:
                time.sleep(0.02)
            time.sleep(wait)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (self.folder / name / "comparison.json").exists(), "it was done before it could be killed"


def kept(store: Path) -> int:
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM arms").fetchone()[0])
    except sqlite3.Error:
        return 0


def steady(answer: MethodComparison) -> dict[str, Any]:
    """Without what was measured by the clock."""
    content = answer.content()
    content["findings"] = [each for each in content["findings"] if "cost" not in each["finding"]]
    return {key: value for key, value in content.items() if key not in {"costs", "evaluation"}}


@pytest.fixture(scope="module")
def scene(family: "Family", tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(family, tmp_path_factory.mktemp("kill"))


@pytest.mark.parametrize(("arms", "wait"), [(1, 0.0), (6, 0.15)])
def test_a_killed_comparison_goes_on_to_the_same_report(scene: Scene, arms: int, wait: float) -> None:
    scene.kill_after(f"after-{arms}", arms, wait)
    assert scene.compare(f"after-{arms}") == scene.calm
    assert {path.name for path in (scene.folder / f"after-{arms}").iterdir()} == {
        path.name for path in (scene.folder / "calm").iterdir()
    }, "something was left behind"


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(8))
def test_killed_twice_at_random_moments(scene: Scene, seed: int) -> None:
    rng = random.Random(seed)
    for arms in sorted(rng.sample(range(11), 2)):
        scene.kill_after(f"random-{seed}", arms, rng.uniform(0.0, 0.5))
    assert scene.compare(f"random-{seed}") == scene.calm
