"""What is shown of runs in which not everything went well."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rich.console import Console
from rich.progress import Progress, TextColumn

from evaluators.base import Task
from kinship.errors import EvaluationFailed
from kinship.pictures.family import family_figure
from kinship.pictures.layout import layered_layout
from search.history.lineage import lineage_of, shown
from search.ledger.ledger import Ledger
from service.commands.search_progress import SearchProgress
from service.pages.contents import RunContents
from service.pages.report import write_report
from service.pages.run_folder import run_evolution
from tests.conftest import MakeModel
from tests.evaluators.test_model_kinds import REFUSED, write
from tests.search.runs import MANY, Scene, make_scene
from tests.search.trees import random_export
from tests.service.conftest import Kinship

if TYPE_CHECKING:
    from service.demo.family import Family


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)


def troubled(scene: Scene, observer: Any = lambda name, facts: None) -> Path:
    """A run with racing in which an offspring fails and others are stopped early."""

    def before(id: str, number: int) -> None:
        if id == "1-2":
            raise EvaluationFailed("out of <memory>")

    config = scene.config(race={"enabled": True, "minimum": 6}, strategy={"k": 2}, stop={"generations": 4})
    scene.run("run", config, scene.evaluator(before, tasks=MANY), observer=observer)
    return scene.folder / "run"


def test_show_list_and_report_tell_of_failures_estimates_and_doubles(kinship: Kinship, scene: Scene) -> None:
    folder = troubled(scene)
    people = json.loads(kinship("runs", "show", folder, "--json").out)["individuals"]
    estimated = [p["id"] for p in people if "search" in p["scores"] and not p["scores"]["search"]["complete"]]
    assert estimated
    shown = kinship("runs", "show", folder).out
    assert re.search(r"1-2 .* failed", shown)
    assert shown.count("~") == len(estimated)
    rows = [line.split()[1] for line in shown.splitlines() if line.startswith("│")]
    assert rows[-1] == "1-2"  # those without a score come last, estimates before them
    assert set(rows[-1 - len(estimated) : -1]) == set(estimated)

    failures = json.loads(kinship("runs", "show", folder, "--failures", "--json").out)
    assert [(f["id"], f["stage"], f["kind"]) for f in failures["failures"]] == [("1-2", "search", "raised")]
    assert "EvaluationFailed" in kinship("runs", "show", folder, "--failures").out

    (row,) = json.loads(kinship("runs", "list", scene.folder, "--json").out)["runs"]
    assert (row["folder"], row["failed"], row["founders"]) == (str(folder), 1, 3)
    assert row["offspring"] == len(people) - 4
    assert re.search(r"│ run +│ topk", kinship("runs", "list", scene.folder).out)

    write_report(folder / "report.html", {"run": RunContents.open(folder)}, "title")
    page = (folder / "report.html").read_text()
    assert "out of &lt;memory&gt;" in page
    assert page.count("≈ ") == 2 * len(estimated)  # among merges, and among individuals
    tree = json.loads(kinship("tree", folder, "--json").out)
    assert {node["id"] for node in tree["nodes"]} == {p["id"] for p in people}


def test_offspring_of_many_parents(kinship: Kinship, scene: Scene) -> None:
    config = scene.config(strategy={"name": "soup"}, stop={"evaluations": 6})
    scene.run("soup", config)
    folder = scene.folder / "soup"
    people = json.loads(kinship("runs", "show", folder, "--json").out)["individuals"]
    assert max(len(p["parents"]) for p in people) > 2
    assert " x ".join(max((p["parents"] for p in people), key=len)[:2]) in kinship("runs", "show", folder).out
    write_report(folder / "report.html", {"run": RunContents.open(folder)}, "title")
    lineage = lineage_of(RunContents.open(folder).export)
    born = sum(len(p["parents"]) for p in people)
    assert lineage.number_of_edges() == born + sum(p["role"] == "founder" for p in people)


def test_a_folder_without_runs(kinship: Kinship, tmp_path: Path) -> None:
    assert json.loads(kinship("runs", "list", tmp_path, "--json").out) == {"schema": "kinship.runs/1", "runs": []}
    assert kinship("runs", "show", tmp_path).code == 1
    (tmp_path / "ledger.sqlite").write_bytes(b"rubbish" * 1000)
    outcome = kinship("runs", "list", tmp_path)
    assert outcome.code == 0
    assert "not a readable ledger" in outcome.err


def test_the_best_of_a_search_beyond_the_span_is_written(scene: Scene, kinship: Kinship) -> None:
    merge = {"method": "ties", "parameters": {"density": 0.9, "weight": 0.5}}
    config = scene.config(merge=merge, stop={"generations": 2})
    folder = scene.folder / "ties"
    scene.run("ties", config)
    stored = sorted(path.stem for path in (folder / "children").iterdir())
    with Ledger.of_run(folder) as ledger:
        assert sorted(child.id for child in ledger.stored()) == stored
        assert len(stored) == sum(record.generation > 0 for record in ledger.records())
    view = RunContents.open(folder)
    recipe = view.best_recipe
    assert recipe is not None
    assert recipe.merge_method == "ties"
    assert set(recipe.references) <= {"base", *scene.founders}
    assert set(stored) < set(view.kinship.ids)


def test_the_live_view_says_how_far_it_is(scene: Scene) -> None:
    text = io.StringIO()
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, console=Console(file=text, width=120, force_terminal=False)) as bar:
        view = SearchProgress(bar)
        status: list[str] = []

        def observer(name: str, facts: Mapping[str, Any]) -> None:
            view(name, facts)
            status.append(f"{bar.tasks[0].description}: {bar.tasks[0].fields['amount']}")

        troubled(scene, observer)
    lines = text.getvalue()
    assert re.search(r"1-2 +failed: out of <memory>", lines)
    assert re.search(r"estimated from \d+ documents", lines)
    assert "best so far" in lines
    assert "Stopped because reached 4 generations." in lines
    assert any(re.fullmatch(r"Generation 1: 1 of 3, best \w+ -?\d+\.\d+ ± \d+\.\d+, cpu", line) for line in status)
    assert any(line.startswith("Held-out documents: ") and "1 failed" in line for line in status)


def test_large_runs_are_shown_in_part() -> None:
    export = random_export(3, generations=60) | {"best_so_far": ["founder-0", "7-1", "60-1"]}
    for individual in export["individuals"]:
        individual["scores"].setdefault("search", {"value": 0.1})
    everyone = [individual["id"] for individual in export["individuals"]]
    assert shown(export, len(everyone)) == everyone
    some = shown(export, 40)
    assert 40 <= len(some) < len(everyone)
    assert some == [id for id in everyone if id in some]
    assert {"base", "founder-0", "founder-3", "60-1"} <= set(some)
    parents = next(i["parents"] for i in export["individuals"] if i["id"] == "60-1")
    assert set(parents) <= set(some)
    graph = lineage_of(export, 40)
    assert set(graph) == set(some)
    layout = layered_layout(graph)
    assert sorted({y for _, y in layout.nodes.values()}) == list(range(len(layout.layers)))
    assert layout.layers[:2] == ("base", "founders")
    assert all(layout.layers[int(layout.nodes[id][1])] == f"generation {graph.nodes[id]['generation']}" for id in graph
               if graph.nodes[id]["generation"])  # fmt: skip
    family_figure(graph).canvas.draw()


def test_evolution_needs_no_cache(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    import service.pages.run_folder as evolution
    from search.running.coordinator import Search

    monkeypatch.setattr(
        evolution, "Search", lambda *given, **options: Search(*given, **options, evaluator=scene.evaluator())
    )
    events: list[str] = []
    view = run_evolution(
        scene.config(stop={"generations": 1}), scene.folder / "plain", root=scene.folder, cache=None,
        observer=lambda name, facts: events.append(name),
    )  # fmt: skip
    assert events[-1] == "finished"
    assert view.export["best_offspring"] in (scene.folder / "plain" / "report.html").read_text()


def test_a_run_that_holds_nothing_out_says_so(kinship: Kinship, scene: Scene) -> None:
    tasks = (Task("fake", "closeness", "fake/whole", {"search": range(13)}),)
    config = scene.config(evaluate={"tasks": ["fake"], "search_fraction": 1}, stop={"generations": 1})
    scene.run("run", config, scene.evaluator(tasks=tasks))
    export = scene.export("run")
    assert all(person["scores"].keys() == {"search"} for person in export["individuals"])
    assert export["gain_over_best_founder"].keys() == {"search"}
    folder = scene.folder / "run"
    assert "Nothing was held out" in " ".join(kinship("runs", "show", folder).out.split())
    write_report(folder / "report.html", {"run": RunContents.open(folder)}, "title")
    page = (folder / "report.html").read_text()
    assert "Nothing was held out" in page
    assert "held-out" not in page.partition("Nothing was held out")[0].rpartition("<body")[2]


@pytest.mark.parametrize("options", [["--dry-run"], []])
@pytest.mark.parametrize("problem", ["bert", "unlike"])
def test_what_cannot_be_selected_on_is_refused_beforehand(
    kinship: Kinship, family: "Family", run_file: Path, tmp_path: Path, options: list[str], problem: str
) -> None:
    content = yaml.safe_load(run_file.read_text())
    if problem == "bert":
        place = str(write(REFUSED["bert"], tmp_path / "bert"))
        content |= {"base": place, "founders": {"one": place, "two": place}}
    else:
        (tmp_path / "text.txt").write_text("".join(f"{letter * 3} and so on\n" for letter in "abcdefghijklmnop"))
        content["evaluate"] |= {"perplexity": [{"file": "text.txt", "documents": "lines"}]}
    run_file.write_text(yaml.safe_dump(content))
    outcome = kinship("evolve", run_file, "--out", tmp_path / "run", *options)
    assert outcome.code == 1
    said = " ".join(outcome.err.split())
    assert ("sees the words on both sides" if problem == "bert" else "unlike metrics") in said
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()
