"""Fault suite (e): files of a search that somebody changes, cuts short or removes while it runs."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from evaluators.cache import ScoreCache
from kinship.errors import InputsChanged
from tests.search.runs import Scene

CACHE = "scores.sqlite"
HARMS = ["overwritten", "replaced", "swapped back", "truncated", "removed"]
TIES = {"method": "ties", "parameters": {"density": 0.5}}


def harm(file: Path, kind: str, saved: Path) -> None:
    """Do to ``file``, of which ``saved`` is a copy, what training that goes on in its folder may do."""
    other = {name: tensor + 0.5 for name, tensor in load_file(saved).items()}
    before = file.stat()
    match kind:
        case "overwritten":  # in place, its date kept
            save_file(other, file.with_name("other"))
            file.write_bytes(file.with_name("other").read_bytes())
        case "replaced" | "swapped back":
            save_file(other, file.with_name("other"))
            shutil.move(file.with_name("other"), file)
        case "truncated":
            file.write_bytes(saved.read_bytes()[: before.st_size // 2])
        case "removed":
            file.unlink()


def harmed(scene: Scene, name: str, kind: str, at: int, victim: str, config: Any) -> bool:
    """Run with the ``victim`` harmed before evaluation ``at``; whether that ended the run."""
    folder = dict(scene.founders, base=scene.base)[victim]
    file, saved = folder / "model.safetensors", scene.folder / "saved"
    shutil.copy2(file, saved)

    def before(id: str, number: int) -> None:
        if number == at:
            harm(file, kind, saved)
        if number == at + 1 and kind == "swapped back":
            shutil.copy2(saved, file)

    told = ""
    try:
        scene.run(name, config, scene.evaluator(before), ScoreCache(scene.folder / CACHE))
    except InputsChanged as error:
        told = error.message
    finally:
        shutil.copy2(saved, file)
    assert str(file) in told or not told
    return bool(told)


def wrong(scene: Scene, name: str, truth: dict[str, Any], config: Any) -> int:
    """Scores of the run, or that its cache gives another run, that are not those of ``truth``, by identity."""
    scene.run(f"{name} after", config, cache=ScoreCache(scene.folder / CACHE))  # reads what the cache was left with
    count = 0
    for run in (name, f"{name} after"):
        for one in scene.export(run)["individuals"]:
            for split, score in one["scores"].items():
                count += truth[one["identity"], split] != score["value"]
    return count


def truth_of(scene: Scene, config: Any) -> dict[str, Any]:
    scene.run("calm", config)
    everyone = scene.export("calm")["individuals"]
    return {(one["identity"], split): score["value"] for one in everyone for split, score in one["scores"].items()}


@pytest.mark.parametrize(("kind", "at", "victim"), [("overwritten", 5, "near"), ("swapped back", 2, "base")])
def test_no_score_of_changed_files_is_kept(scene: Scene, kind: str, at: int, victim: str) -> None:
    config = scene.config()
    truth = truth_of(scene, config)
    assert harmed(scene, "run", kind, at, victim, config)
    assert wrong(scene, "run", truth, config) == 0
    scene.run("run", config, cache=ScoreCache(scene.folder / CACHE))  # put back, it goes on
    assert scene.text("run") == scene.text("calm")


@pytest.mark.soak
@pytest.mark.parametrize("number", range(20))
def test_no_score_of_changed_files_is_kept_at_any_moment(scene: Scene, number: int) -> None:
    chance = random.Random(number)
    config = scene.config(**({"merge": TIES} if number % 4 == 3 else {}))
    truth = truth_of(scene, config)
    victim = chance.choice([*scene.founders, "base"])
    harmed(scene, "run", HARMS[number % len(HARMS)], chance.randrange(12), victim, config)
    assert wrong(scene, "run", truth, config) == 0
    scene.run("run", config, cache=ScoreCache(scene.folder / CACHE))
    assert scene.text("run") == scene.text("calm")
