"""Every command of the app, asked for JSON: what it prints is the object that its answer's function returns."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml

from kinship.errors import EvaluationFailed
from service import answers
from service.answers import Answer
from tests.conftest import MakeModel
from tests.search.comparison.plans import content_of, write_plan
from tests.search.runs import Scene, make_scene
from tests.service.conftest import Kinship

if TYPE_CHECKING:
    from service.demo.family import Family

VOLATILE = {"disk_free", "seconds", "used"}  # other numbers a moment later


@dataclass(frozen=True)
class World:
    """A run, models, and room for what is made of them."""

    scene: Scene
    folder: Path
    run_file: Path
    family: "Family"

    @property
    def run(self) -> str:
        return str(self.scene.folder / "run")

    @property
    def models(self) -> list[str]:
        return [str(path) for path in self.scene.founders.values()]

    @property
    def kin(self) -> list[str]:
        """Models large enough to be sketched."""
        return [str(path) for path in self.family.founders[:2]]

    @property
    def base(self) -> str:
        return str(self.scene.base)

    @property
    def recipe(self) -> Path:
        path = self.folder / "recipe.yml"
        models = [{"model": model, "parameters": {"weight": 1}} for model in self.models]
        path.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
        return path

    @property
    def settings(self) -> Path:
        path = self.folder / "evaluate.yml"
        content = {"tasks": [self.family.task_names[0]], "task_path": str(self.family.tasks), "limit": 4}
        path.write_text(yaml.safe_dump(content))
        return path

    @property
    def plan(self) -> Path:
        methods = {"linear": {}, "task_arithmetic": {"parameters": {"lambda": 0.4}}}
        content = content_of(self.family, methods=methods, seeds=[0], number={})
        return write_plan(self.folder / "plan.yml", content)

    @property
    def full(self) -> Path:
        path = self.folder / "full.json"
        path.write_text(answers.archive_of(self.run).canonical())
        return path

    def file(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture
def world(make_model: MakeModel, tmp_path: Path, run_file: Path, family: "Family") -> World:
    scene = make_scene(make_model, tmp_path)

    def before(id: str, number: int) -> None:
        if id == "1-2":
            raise EvaluationFailed("out of memory")

    scene.run("run", scene.config(stop={"generations": 2}), scene.evaluator(before))
    return World(scene, tmp_path, run_file, family)


def merged(world: World) -> Answer:
    from merging.recipe.schema import load_recipe

    return answers.merge_models(load_recipe(world.recipe), world.file("merged"), force=True)


def merge_plan(world: World) -> Answer:
    from merging.recipe.schema import load_recipe

    return answers.plan_merging(load_recipe(world.recipe), world.file("planned"))


def scored(world: World) -> Answer:
    from evaluators.cache import ScoreCache
    from service.commands.score import read_settings

    settings = read_settings(world.settings, {}, [])
    return answers.score_models([str(world.family.base)], settings, world.folder, ScoreCache(world.file("scores")))


def compared(world: World) -> Answer:
    from search.comparison.plan import load_plan

    return answers.compare_methods(load_plan(world.plan), world.file("compared"))


def search_plan(world: World) -> Answer:
    from search.config import load_config

    return answers.plan_search(load_config(world.run_file), world.folder, world.file("search"))


Command = Callable[[World], list[Any]]
CASES: dict[str, tuple[Command, Callable[[World], Answer]]] = {
    "matrix": (
        lambda w: [*w.models, "--base", w.base, "--by", "layer"],
        lambda w: answers.measure_matrix(w.models, w.base, by="layer"),
    ),
    "matrix --dry-run": (
        lambda w: [*w.models, "--base", w.base],
        lambda w: answers.plan_matrix(w.models, w.base),
    ),
    "advise": (lambda w: [*w.models, "--base", w.base], lambda w: answers.advise_pairs(w.models, w.base)),
    "tree": (lambda w: [w.run], lambda w: answers.trace_run(w.run)),
    "tree --joining nj": (
        lambda w: [*w.models, "--base", w.base],
        lambda w: answers.join_models(w.models, w.base, joining="nj"),
    ),
    "tree --recorded": (lambda w: w.models, lambda w: answers.trace_models(w.models)),
    "tree --recover": (lambda w: w.models, lambda w: answers.trace_models(w.models, recorded=False, recover=True)),
    "tree --recorded --recover": (lambda w: w.models, lambda w: answers.trace_models(w.models, recover=True)),
    "merge": (lambda w: [w.recipe, w.file("merged"), "--force"], merged),
    "merge --dry-run": (lambda w: [w.recipe, w.file("planned")], merge_plan),
    "extract-lora": (
        lambda w: [w.models[0], "--base", w.base, "--out", w.file("lora"), "--force"],
        lambda w: answers.extract_adapter(w.models[0], w.base, w.file("lora"), force=True),
    ),
    "align": (
        lambda w: [w.kin[0], "--to", w.kin[1], "--out", w.file("aligned"), "--force"],
        lambda w: answers.align_model(w.kin[0], w.kin[1], w.file("aligned"), force=True),
    ),
    "methods": (lambda w: [], lambda w: answers.list_methods()),
    "verify": (lambda w: [w.base], lambda w: answers.check_folder(w.scene.base)),
    "score": (lambda w: [w.family.base, "--config", w.settings, "--cache", w.file("scores")], scored),
    "evolve --dry-run": (lambda w: [w.run_file, "--out", w.file("search")], search_plan),
    "compare": (lambda w: [w.plan, "--out", w.file("compared")], compared),
    "runs list": (lambda w: [w.folder], lambda w: answers.list_runs(str(w.folder))),
    "runs show": (lambda w: [w.run], lambda w: answers.export_of(w.run)),
    "runs show --failures": (lambda w: [w.run], lambda w: answers.failures_of(w.run)),
    "runs import": (
        lambda w: [w.full, w.file("copy"), "--force"],
        lambda w: answers.import_run(w.full, w.file("copy"), force=True),
    ),
    "runs verify": (lambda w: [w.run], lambda w: answers.check_run(w.run)),
    "runs compare": (lambda w: [w.run, w.file("copy")], lambda w: answers.compare_runs([w.run, str(w.file("copy"))])),
    "cache list": (lambda w: ["--cache", w.file("scores")], lambda w: answers.list_cache(w.file("scores"))),
    "cache size": (lambda w: ["--cache", w.file("scores")], lambda w: answers.measure_cache(w.file("scores"))),
    "cache prune --dry-run": (
        lambda w: ["--cache", w.file("scores"), "--model", "*"],
        lambda w: answers.prune_cache(w.file("scores"), model="*", dry_run=True),
    ),
    "cache verify": (lambda w: ["--cache", w.file("scores")], lambda w: answers.check_cache(w.file("scores"))),
    "index add": (
        lambda w: [w.file("index"), *w.kin, "--force"],
        lambda w: answers.add_models(w.file("index"), w.kin, force=True),
    ),
    "index list": (lambda w: [w.file("index")], lambda w: answers.list_index(w.file("index"))),
    "index query": (
        lambda w: [w.file("index"), w.family.base],
        lambda w: answers.find_relatives(w.file("index"), str(w.family.base)),
    ),
    "index remove": (
        lambda w: [w.file("index"), w.kin[0]],
        lambda w: answers.list_index(w.file("index")),
    ),
}


def test_every_command_prints_the_object_that_its_answer_is(kinship: Kinship, world: World) -> None:
    for command, (arguments, answer) in CASES.items():
        outcome = kinship(*command.split(), *arguments(world), "--json")
        assert outcome.code == 0, f"{command}: {outcome.err}"
        expected = answer(world)
        read = type(expected).model_validate_json(outcome.out)
        assert read.to_json() + "\n" == outcome.out, command  # nothing is lost in reading
        assert steady(read.content()) == steady(expected.content()), command


def steady(content: Any) -> Any:
    """The same without numbers that change from one moment to the next."""
    if isinstance(content, dict):
        return {key: steady(value) for key, value in content.items() if key not in VOLATILE}
    return [steady(value) for value in content] if isinstance(content, list) else content


def test_every_command_that_prints_json_is_among_them() -> None:
    from service.cli import COMMANDS, GROUPS

    commands = {command.__name__.replace("_", "-"): command for command in COMMANDS}
    for group, typer in GROUPS.items():
        commands |= {f"{group} {each.name}": each.callback for each in typer.registered_commands if each.callback}
    told = {name for name, command in commands.items() if "as_json" in command.__annotations__}
    asked = {command.partition(" --")[0] for command in CASES}
    assert asked == told
    assert commands.keys() - told == {"demo", "runs export", "serve"}


def test_exports_and_events_are_answers_too(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    scene = make_scene(make_model, tmp_path)
    lines: list[str] = []

    def observer(name: str, facts: Any) -> None:
        event = answers.event_of(name, facts)
        lines.append(event.to_json(indent=None))
        assert event.content() == {"schema": "kinship.event/2", "event": name, **facts}
        assert answers.read_event(lines[-1]) == event

    def before(id: str, number: int) -> None:
        if id == "1-2":
            raise EvaluationFailed("out of memory")

    race = {"enabled": True, "minimum": 4}
    scene.run("run", scene.config(race=race), scene.evaluator(before), observer=observer)
    kinds = {answers.read_event(line).event for line in lines}
    assert {"started", "phase", "generation", "scored", "failed", "stopped"} <= kinds
    run = str(scene.folder / "run")
    assert kinship("runs", "export", run).out == answers.export_of(run).canonical()
    text = kinship("runs", "export", run, "--full").out
    assert answers.RunArchive.model_validate_json(text).canonical() == text
    assert json.loads(answers.export_of(run).canonical()) == scene.export("run")


def test_an_error_is_an_answer(kinship: Kinship) -> None:
    outcome = kinship("runs", "show", "nowhere", "--json")
    assert outcome.code == 1
    error = answers.Error.model_validate_json(outcome.out)
    assert error.to_json(indent=None) + "\n" == outcome.out
    assert error.code == "ledger_error"


def test_choices_are_those_of_the_registries() -> None:
    from kinship.measures.options import ComparisonOptions
    from service.commands import options

    fields = ComparisonOptions.model_fields
    assert get_args(get_args(options.Vocab)[0]) == get_args(fields["vocab"].annotation)
    assert set(get_args(options.DeviceName)) == set(get_args(fields["device"].annotation))
