"""`--force` replaces what kinship wrote, and only that."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kinship.errors import LedgerError, OutputExists
from search.config import parse_config
from search.ledger.location import LEDGER_NAME, hold_folder, replaced_run
from search.running.coordinator import Search
from service.answers.replaced import foreign_in_demo, foreign_in_run, inputs_of_run
from service.commands.demo import demo
from service.commands.evolve import prepare_folder
from tests.conftest import MakeModel
from tests.search.runs import Scene, make_scene
from tests.service.conftest import Kinship


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)


@pytest.fixture
def run(scene: Scene) -> Path:
    scene.run("run")
    return scene.folder / "run"


def test_a_run_is_replaced_once_the_new_one_has_begun(scene: Scene, run: Path) -> None:
    before = scene.export("run")
    with Search(scene.config(seed=7), run, evaluator=scene.evaluator(), force=True) as search:
        assert search.records == []
        search.run()
    assert scene.export("run")["config"]["seed"] == 7
    assert before["config"]["seed"] != 7
    assert [path.name for path in run.parent.iterdir() if path.name.startswith(".run")] == []


def test_a_run_stays_where_the_new_one_cannot_begin(
    scene: Scene, run: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listing(run)

    def fail(*arguments: object) -> None:
        raise OSError("unreadable weights")

    monkeypatch.setattr("search.running.coordinator.gram_table", fail)
    with pytest.raises(OSError, match="unreadable weights"):
        Search(scene.config(), run, evaluator=scene.evaluator(), force=True)
    assert listing(run) == before
    config = scene.config()
    missing = config.model_copy(update={"founders": {**config.founders, "typo": "there/is/none"}})
    with pytest.raises(Exception, match=r"there/is/none"):
        Search(missing, run, evaluator=scene.evaluator(), force=True)
    assert listing(run) == before


def test_a_run_in_progress_is_not_replaced(scene: Scene, run: Path) -> None:
    lock = hold_folder(run)
    before = listing(run)
    with pytest.raises(LedgerError, match="Another process is running"):
        prepare_folder(run, resume=False, force=True)
    with pytest.raises(LedgerError, match="Another process is running"), replaced_run(run):
        pass
    with pytest.raises(LedgerError, match="Another process is running"):
        foreign_in_run(run)
    assert listing(run) == before
    lock.release(force=True)
    prepare_folder(run, resume=False, force=True)
    assert listing(run) == before


@pytest.mark.parametrize("name", ["notes.txt", "children/mine.gguf", "best-offspring/notes.txt", "data/x"])
def test_a_run_with_something_of_others_in_it_is_not_replaced(run: Path, name: str) -> None:
    (run / name).parent.mkdir(exist_ok=True, parents=True)
    (run / name).write_text("mine")
    with pytest.raises(OutputExists, match=f"{name.removesuffix('/x')} in it was not written by kinship"):
        prepare_folder(run, resume=False, force=True)
    prepare_folder(run, resume=True, force=False)


def test_a_run_that_holds_an_input_is_not_replaced(scene: Scene, run: Path, make_model: MakeModel) -> None:
    config = scene.config()
    inside = config.model_copy(update={"founders": {**config.founders, "inside": "run/model"}})
    (run / "best-offspring").mkdir()
    (run.parent / "link").symlink_to(run / "best-offspring")
    linked = config.model_copy(update={"founders": {**config.founders, "inside": "link"}})
    for given in (inputs_of_run(linked, scene.folder), [run / LEDGER_NAME]):
        with pytest.raises(OutputExists, match=r"the input .* is in it"):
            prepare_folder(run, resume=False, force=True, inputs=given)
    assert inputs_of_run(inside, scene.folder) == inputs_of_run(config, scene.folder)  # what is not there is none


def test_a_run_behind_a_link_is_not_replaced(run: Path) -> None:
    (run.parent / "link").symlink_to("run")
    (run.parent / "dangling").symlink_to("nowhere")
    with pytest.raises(OutputExists, match="link to the folder"):
        prepare_folder(run.parent / "link", resume=False, force=True)
    with pytest.raises(OutputExists, match="dangling exists already"):
        prepare_folder(run.parent / "dangling", resume=False, force=False)


def test_a_demo_is_replaced_only_where_all_of_it_is_one(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (out / "family").mkdir(parents=True)
    assert foreign_in_demo(out) == "family"
    (out / "family" / "family.json").write_text("{}")
    (out / "run-vanilla").mkdir()
    (out / "run-vanilla" / LEDGER_NAME).touch()
    assert foreign_in_demo(out) is None
    (out / "run-vanilla" / "notes.txt").touch()
    assert foreign_in_demo(out) == "run-vanilla/notes.txt"
    with pytest.raises(OutputExists, match=r"notes\.txt in it"):
        demo(out, force=True)


@pytest.fixture
def merge(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> Callable[..., str]:
    models = [{"model": str(make_model(name, seed)), "parameters": {"weight": 1}} for seed, name in enumerate("ab")]
    (tmp_path / "r.yml").write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))

    def merge(out: Path, *options: object, recipe: Path = tmp_path / "r.yml") -> str:
        outcome = kinship("merge", recipe, out, *options)
        return outcome.err if outcome.code else "written"

    return merge


def test_merge_replaces_merges_only(merge: Callable[..., str], tmp_path: Path) -> None:
    out, model = tmp_path / "out", tmp_path / "a"
    assert merge(out) == "written"
    assert merge(out, "--force") == "written"
    copy = (out / "mergekit_config.yml").read_bytes()
    assert "the input" in merge(out, "--force", recipe=out / "mergekit_config.yml")
    assert "is it." in merge(model, "--force").replace("\n", " ")
    (out / "training").mkdir()
    for options in (["--force"], ["--force", "--dry-run"]):
        assert "training in it was not written by kinship" in merge(out, *options).replace("\n", " ")
    assert (out / "mergekit_config.yml").read_bytes() == copy
    before = listing(model)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "important").touch()
    assert "important in it" in merge(tmp_path / "home", "--force").replace("\n", " ")
    assert listing(model) == before


def test_outputs_do_not_replace_files_of_their_models(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    base, model = make_model("base"), make_model("model", 1)
    place = model / "config.json"
    before = listing(model)
    for command in (["matrix", model, "--base", base], ["tree", model, base, "--base", base, "--recorded"]):
        outcome = kinship(*command, "--out", place, "--force")
        assert outcome.code == 1
        assert "belongs to the input" in outcome.err.replace("\n", " ")
    outcome = kinship("score", model, "--tasks", "none", "--out", place, "--force")
    assert "belongs to the input" in outcome.err.replace("\n", " ")
    assert listing(model) == before


def test_settings_name_their_inputs(tmp_path: Path) -> None:
    for name in ("base", "one", "tasks"):
        (tmp_path / name).mkdir()
    (tmp_path / "t.txt").touch()
    config = parse_config(
        {
            "base": "base",
            "founders": ["one", "org/there"],
            "evaluate": {"tasks": ["x"], "task_path": "tasks", "perplexity": [{"file": "t.txt"}]},
        }
    )
    assert {path.name for path in inputs_of_run(config, tmp_path)} == {"base", "one", "tasks", "t.txt"}
