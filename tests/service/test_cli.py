"""The commands as a user types them, right and wrong."""

import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from tests.conftest import SHAPES, MakeModel
from tests.service.conftest import Kinship

if TYPE_CHECKING:
    from service.demo.family import Family


def test_matrix_prints_one_json_object(kinship: Kinship, make_model: MakeModel) -> None:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("abc", 1)]
    outcome = kinship("matrix", *models, "--base", base, "--metric", "cosine", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert (found["schema"], found["metric"], found["base"]) == ("kinship.matrix/1", "cosine", str(base))
    assert found["ids"] == [str(model) for model in models]
    vectors = [flat(model) - flat(base) for model in models]
    expected = [[one @ two / np.linalg.norm(one) / np.linalg.norm(two) for two in vectors] for one in vectors]
    np.testing.assert_allclose(found["values"], expected, atol=1e-6)


def test_matrix_reads_pickles_and_shares_vocabularies_when_asked(
    kinship: Kinship, make_model: MakeModel, tmp_path: Path
) -> None:
    base, model = make_model("base"), make_model("model", 1)
    tensors = {name: torch.from_numpy(array) for name, array in load_file(model / "model.safetensors").items()}
    tensors["model.embed_tokens.weight"] = torch.cat([tensors["model.embed_tokens.weight"], torch.ones(2, 8)])
    torch.save(tensors, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    for folder in (base, model):
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {str(id): id for id in range(11)}}}))
    refused = kinship("matrix", model, "--base", base)
    assert refused.code == 1
    assert "--allow-pickle" in refused.err
    command = ["matrix", model, "--base", base, "--allow-pickle", "--vocab", "shared", "--json"]
    for extra in ([], ["--dry-run"]):
        outcome = kinship(*command, *extra)
        assert outcome.code == 0
        found = json.loads(outcome.out)
        assert found["tensors"] == 6
        assert "11 tokens" in found["left_out"]["model.embed_tokens.weight"]


def flat(folder: Path) -> np.ndarray:
    tensors = load_file(folder / "model.safetensors")
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in sorted(tensors)])


def test_matrix_writes_every_format_and_replaces_only_with_force(
    kinship: Kinship, make_model: MakeModel, tmp_path: Path
) -> None:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("ab", 1)]
    outputs = [tmp_path / f"out/matrix.{suffix}" for suffix in ("csv", "json", "npz", "png", "svg")]
    options = [part for path in outputs for part in ("--out", path)]
    assert kinship("matrix", *models, "--base", base, *options).code == 0
    assert all(path.stat().st_size > 0 for path in outputs)
    before = outputs[0].read_bytes()
    again = kinship("matrix", models[0], "--base", base, "--out", outputs[0])
    assert again.code == 1
    assert "exists already" in again.err
    assert "--force" in again.err
    assert outputs[0].read_bytes() == before
    assert kinship("matrix", models[0], "--base", base, "--out", outputs[0], "--force").code == 0
    assert outputs[0].read_bytes() != before


def test_replacing_a_matrix_over_other_tensors_is_noted(
    kinship: Kinship, make_model: MakeModel, tmp_path: Path
) -> None:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("ab", 1)]
    command = ["matrix", *models, "--base", base, "--out", tmp_path / "m.json", "--force"]
    assert "other tensors" not in kinship(*command).err
    assert "other tensors" not in kinship(*command).err
    assert "other tensors" in kinship(*command, "--include", "mlp").err


def test_asking_again_says_that_nothing_was_read(
    kinship: Kinship, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINSHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("kinship.file_state.YOUNG_SECONDS", 0.0)
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("ab", 1)]
    first, again = (kinship("matrix", *models, "--base", base) for _ in range(2))
    assert "no weights were read" not in first.err
    assert "no weights were read" in again.err
    assert again.out == first.out


def test_kinship_by_group_is_written_as_rows(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("abc", 1)]
    out = tmp_path / "groups.csv"
    outcome = kinship("matrix", *models, "--base", base, "--by", "tensor", "--json", "--out", out)
    groups, ids = json.loads(outcome.out)["groups"], [str(model) for model in models]
    with open(out, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["tensor", "one", "other", "pcc"]
    assert {(row[0], row[1], row[2]): float(row[3]) for row in rows} == {
        (label, ids[i], ids[j]): values[i][j] for label, values in groups.items() for i, j in ((0, 1), (0, 2), (1, 2))
    }


def test_share_of_the_parameters_is_told(kinship: Kinship, make_model: MakeModel) -> None:
    base = make_model("base")
    command = ["matrix", make_model("a", 1, base), "--base", base]
    assert "6 tensors with all of the parameters" in kinship(*command).out.replace("\n", "")
    counts = {name: math.prod(shape) for name, shape in SHAPES.items()}
    want = 1 - counts["model.norm.weight"] / sum(counts.values())
    assert json.loads(kinship(*command, "--exclude", "norm", "--json").out)["share"] == pytest.approx(want)
    assert f"5 tensors with {100 * want:.2f} % of the parameters" in kinship(*command, "--exclude", "norm").out.replace(
        "\n", ""
    )


def test_every_metric_is_printed_and_told_in_json(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("ab", 1)]
    command = ["matrix", *models, "--base", base, "--metric"]
    assert "unrelated models: about 0.5" in kinship(*command, "sign", "--by", "layer").out
    outcome = kinship(*command, "subspace", "--rank", "2", "--json", "--out", tmp_path / "matrix.html")
    content = json.loads(outcome.out)
    assert content["metric"] == "subspace"
    assert 0 < content["unrelated"] < 1
    assert content["notes"] == []
    assert "subspace overlap" in (tmp_path / "matrix.html").read_text()
    assert kinship("tree", *models, "--base", base, "--metric", "sign").code == 0
    refusal = kinship("advise", *models, "--base", base, "--metric", "sign")
    assert refusal.code == 1
    assert "pcc" in refusal.err


def test_pickles_are_read_on_request_by_advise_and_tree_too(
    kinship: Kinship, make_model: MakeModel, tmp_path: Path
) -> None:
    base = make_model("base")
    models = []
    for seed, name in enumerate("ab", 1):
        models.append(tmp_path / f"{name}.bin")
        weights = load_file(make_model(name, seed, base) / "model.safetensors")
        torch.save({key: torch.from_numpy(value) for key, value in weights.items()}, models[-1])
    for command in ("advise", "tree"):
        assert "--allow-pickle" in kinship(command, *models, "--base", base).err
        assert kinship(command, *models, "--base", base, "--allow-pickle", "--vocab", "same").code == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_path_is_one_clear_error(kinship: Kinship, make_model: MakeModel, as_json: bool) -> None:
    outcome = kinship("matrix", "no/such/model", "--base", make_model("base"), *(["--json"] if as_json else []))
    assert outcome.code == 1
    if as_json:
        error = json.loads(outcome.out)
        assert error["code"] == "reference_not_found"
        assert error.keys() == {"schema", "code", "message", "hint"}
    else:
        assert "no/such/model" in outcome.err
        assert "Next:" in outcome.err
        assert len(outcome.err.splitlines()) < 10
        assert "Traceback" not in outcome.err


def test_a_model_of_another_shape_is_named(kinship: Kinship, make_model: MakeModel) -> None:
    base = make_model("base")
    other = make_model("other", shapes={"model.norm.weight": (8,), "model.layers.0.self_attn.q_proj.weight": (16, 16)})
    outcome = kinship("matrix", other, "--base", base)
    assert outcome.code == 1
    assert "q_proj" in outcome.err
    assert "[16, 16]" in outcome.err
    assert str(other) in outcome.err.replace("\n", "")


def test_merge_writes_a_model_folder(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("base")
    one, two = (make_model(name, seed, base) for seed, name in enumerate("ab", 1))
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "merge_method": "task_arithmetic",
                "base_model": str(base),
                "models": [{"model": str(model), "parameters": {"weight": 0.5}} for model in (one, two)],
            }
        )
    )
    outcome = kinship("merge", recipe, tmp_path / "child", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["schema"] == "kinship.merge/1"
    np.testing.assert_allclose(flat(tmp_path / "child"), (flat(one) + flat(two)) / 2, atol=1e-6)
    assert kinship("merge", recipe, tmp_path / "child").code == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"fouders": []}, "founders"),
        ({"strategy": {"varient": "kinship"}}, "variant"),
        ({"evaluate": {"tasks": ["demo_reverse"], "batchsize": 3}}, "batch_size"),
        ({"merge": {"parameters": {"scael": 1.0}}}, "scale"),
    ],
)
def test_a_misspelt_key_names_the_right_one(
    kinship: Kinship, run_file: Path, tmp_path: Path, wrong: dict[str, object], named: str
) -> None:
    content = yaml.safe_load(run_file.read_text()) | wrong
    run_file.write_text(yaml.safe_dump(content))
    outcome = kinship("evolve", run_file, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert f"'{named}'" in outcome.err
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_leaves_nothing_behind(kinship: Kinship, run_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(run_file.read_text())
    content["founders"] = [*content["founders"][:-1], "missing-founder"]
    run_file.write_text(yaml.safe_dump(content))
    outcome = kinship("evolve", run_file, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "missing-founder" in outcome.err
    assert not (tmp_path / "run").exists()


def test_an_unwritable_output_folder(kinship: Kinship, run_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = kinship("evolve", run_file, "--out", tmp_path / "file" / "run")
    assert outcome.code == 1
    assert "cannot be written" in outcome.err


def test_dry_run_prints_the_plan_and_writes_nothing(kinship: Kinship, run_file: Path, tmp_path: Path) -> None:
    outcome = kinship("evolve", run_file, "--out", tmp_path / "run", "--dry-run", "--json")
    plan = json.loads(outcome.out)
    count = len(plan["founders"])
    assert plan["offspring_first_generation"] == count * (count - 1) // 2
    assert plan["parameters"] > 0
    assert plan["hours_at_most"] is None
    assert not (tmp_path / "run").exists()


def test_a_dry_run_times_a_founder_when_asked(kinship: Kinship, run_file: Path, tmp_path: Path) -> None:
    outcome = kinship("evolve", run_file, "--out", tmp_path / "run", "--dry-run", "--time", "--json")
    plan = json.loads(outcome.out)
    assert plan["hours_at_most"] == pytest.approx(plan["documents_at_most"] * plan["seconds_per_document"] / 3600)
    models = len(plan["founders"]) + 1
    most = plan["offspring_at_most"]
    assert plan["documents_at_most"] == plan["documents"] * (models + most) + plan["documents_held_out"] * (models + 1)
    shown = kinship("evolve", run_file, "--out", tmp_path / "run", "--dry-run")
    assert "not timed" in shown.out
    assert not (tmp_path / "run").exists()


def test_evolve_from_run_file_to_report(kinship: Kinship, run_file: Path, family: "Family", tmp_path: Path) -> None:
    out, cache = tmp_path / "run", tmp_path / "cache.sqlite"
    outcome = kinship("evolve", run_file, "--out", out, "--cache", cache, "--json")
    assert outcome.code == 0, outcome.err
    events = [json.loads(line) for line in outcome.out.splitlines()]
    assert {event["schema"] for event in events} == {"kinship.event/2"}
    assert events[-1]["event"] == "finished"
    export = json.loads((out / "export.json").read_text())
    best = export["best_offspring"]
    for file in ("report.html", "kinship.csv", "kinship.png", "lineage.png", "lineage.svg", "run.yml"):
        assert (out / file).stat().st_size > 0

    # The written folder is the individual that was scored, and the folded recipe makes it again.
    measured = kinship("matrix", out / "best-offspring", family.founders[0], "--base", family.base, "--json")
    table = [line.split(",") for line in (out / "kinship.csv").read_text().splitlines()]
    told = float(table[table[0].index(best)][table[0].index(family.founders[0].name)])
    assert json.loads(measured.out)["values"][0][1] == pytest.approx(told, abs=1e-5)
    assert kinship("merge", out / "best-offspring.yml", tmp_path / "again").code == 0
    np.testing.assert_array_equal(flat(tmp_path / "again"), flat(out / "best-offspring"))

    # Existing output is kept unless told otherwise, and a finished run can be resumed to the same export.
    assert "--resume" in kinship("evolve", run_file, "--out", out).err
    before = (out / "export.json").read_bytes()
    assert kinship("evolve", run_file, "--out", out, "--cache", cache, "--resume").code == 0
    assert (out / "export.json").read_bytes() == before

    shown = kinship("runs", "show", out)
    assert best in shown.out
    assert kinship("runs", "export", out).out == before.decode()
    tree = json.loads(kinship("tree", out, "--json").out)
    assert {node["id"] for node in tree["nodes"]} == {p["id"] for p in export["individuals"]}
    assert kinship("tree", out, "--out", tmp_path / "tree.svg").code == 0
    assert "generation 1" in (tmp_path / "tree.svg").read_text()

    page = (out / "report.html").read_text()
    assert export["best_founder"] in page
    assert "http-equiv" not in page
    assert '<script src="' not in page  # nothing is fetched


def test_score_tells_both_splits(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    outcome = kinship(
        "score", family.base, "--tasks", ",".join(family.task_names), "--task-path", family.tasks,
        "--cache", tmp_path / "cache.sqlite", "--batch-size", 256, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    splits = json.loads(outcome.out)["models"][0]["splits"]
    assert splits.keys() == {"search", "held_out"}
    assert splits["search"]["tasks"].keys() == set(family.task_names)
    assert 0 < splits["search"]["value"] < 1


def test_tree_of_models_is_a_dendrogram(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("abc", 1)]
    outcome = kinship("tree", *models, "--base", base, "--json", "--out", tmp_path / "tree.png")
    assert len(json.loads(outcome.out)["linkage"]) == 2
    assert (tmp_path / "tree.png").exists()
    assert kinship("tree", models[0]).code == 1


def test_replacing_needs_a_run_folder(kinship: Kinship, run_file: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    for option in ("--force", "--resume"):
        assert kinship("evolve", run_file, "--out", precious, option).code == 1
        assert (precious / "thesis.tex").exists()


def test_a_dry_run_of_a_merge_writes_nothing_and_a_merge_can_be_verified(
    kinship: Kinship, make_model: MakeModel, tmp_path: Path
) -> None:
    base = make_model("base")
    models = [
        {"model": str(make_model(name, seed, base)), "parameters": {"weight": 1}} for seed, name in ((1, "a"), (2, "b"))
    ]
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    outcome = kinship("merge", recipe, tmp_path / "child", "--dry-run", "--json")
    assert outcome.code == 0
    plan = json.loads(outcome.out)
    assert plan["schema"] == "kinship.merge-plan/1"
    assert not (tmp_path / "child").exists()
    assert "6 by linear" in kinship("merge", recipe, tmp_path / "child", "--dry-run").out

    assert kinship("merge", recipe, tmp_path / "child").code == 0
    assert (tmp_path / "child/model.safetensors").stat().st_size == plan["bytes_out"]
    assert kinship("merge", recipe, tmp_path / "child", "--dry-run").code == 1
    told = json.loads(kinship("verify", tmp_path / "child", "--json").out)
    assert (told["schema"], told["ok"]) == ("kinship.verify/1", True)

    weights = bytearray((tmp_path / "child/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "child/model.safetensors").write_bytes(weights)
    outcome = kinship("verify", tmp_path / "child")
    assert outcome.code == 1
    assert "changed: model.safetensors" in outcome.out
