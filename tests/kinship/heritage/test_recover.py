"""Heritage of grown families against the truth they were grown by."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from kinship.errors import InvalidConfig
from kinship.heritage import recover
from kinship.heritage.finetunes import SURE, UNNAMED
from kinship.trees.graph import KINDS
from service.cli import app
from tests.kinship.heritage.growth import Grown, grow, initial
from tests.kinship.heritage.growth import Shape as LlamaShape
from tests.kinship.heritage.judging import Verdict, judge
from tests.kinship.heritage.recipes import quantise, slerp, ties


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grown, list[Path]]:
    torch.set_num_threads(1)
    grown = grow(2000, size=9)
    return grown, grown.save(tmp_path_factory.mktemp("family"))


def verdict_on(grown: Grown, paths: list[Path], withheld: frozenset[str] = frozenset()) -> Verdict:
    paths = [path for path in paths if path.stem not in withheld]
    return judge(grown, recover(paths), {str(path): path.stem for path in paths}, withheld)


def test_outsiders_stay_out_and_merges_and_copies_are_right(family: tuple[Grown, list[Path]]) -> None:
    grown, paths = family
    verdict = verdict_on(grown, paths)
    assert verdict.outsiders > 0
    assert verdict.false_links == 0
    assert verdict.merges_right == verdict.merges_told
    assert verdict.f1 >= 0.7  # all of seven where this was written; training differs a little from machine to machine


def test_the_command_prints_one_documented_object(family: tuple[Grown, list[Path]]) -> None:
    _, paths = family
    result = CliRunner().invoke(app, ["tree", *map(str, paths), "--recover", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["schema"] == "kinship.heritage/2"
    assert [node["id"] for node in told["nodes"]] == [str(path) for path in paths]
    ids = {node["id"] for node in told["nodes"]}
    for edge in told["edges"]:
        assert {edge["parent"], edge["child"]} <= ids
        assert edge["kind"] in set(KINDS) - {"unknown"}
        assert 0 <= edge["confidence"] <= 1
        assert edge["evidence"]
    shown = CliRunner().invoke(app, ["tree", *map(str, paths), "--recover"])
    assert shown.exit_code == 0
    outsiders = {node["id"] for node in told["nodes"] if node["family"] != told["nodes"][0]["family"]}
    assert outsiders
    assert outsiders <= set(shown.output.splitlines())  # on lines of their own, below nobody


def test_a_known_base_has_no_parent(family: tuple[Grown, list[Path]]) -> None:
    grown, paths = family
    base = next(path for path, member in zip(paths, grown.members, strict=True) if member.kind == "base")
    heritage = recover([path for path in paths if path != base], base)
    assert str(base) in {node.id for node in heritage.nodes}
    assert not [edge for edge in heritage.edges if edge.child == str(base) and edge.kind != "duplicate"]
    assert UNNAMED not in heritage.notes
    unnamed = recover(paths)
    assert [edge for edge in unnamed.edges if edge.kind in {"finetune", "lora"} and edge.confidence < SURE]
    assert unnamed.notes.count(UNNAMED) == 1


@pytest.fixture
def states() -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    base = initial(LlamaShape(), generator)
    made = {"base": base}
    for name in ("one", "two", "three"):
        made[name] = {key: t + 0.01 * torch.randn(t.shape, generator=generator) for key, t in base.items()}
    return made


def write(folder: Path, states: dict[str, dict[str, torch.Tensor]]) -> list[Path]:
    for name, state in states.items():
        save_file({key: tensor.clone() for key, tensor in state.items()}, folder / f"{name}.safetensors")
    return [folder / f"{name}.safetensors" for name in states]


def edges_to(paths: list[Path], child: str) -> dict[str, tuple[str, dict]]:
    edges = recover(paths).edges
    return {Path(e.parent).stem: (e.kind, e.evidence) for e in edges if Path(e.child).stem == child}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_is_told_with_its_direction(tmp_path: Path, states: dict, dtype: torch.dtype) -> None:
    states["copy"] = {key: tensor.to(dtype) for key, tensor in states["two"].items()}
    assert {name: kind for name, (kind, _) in edges_to(write(tmp_path, states), "copy").items()} == {"two": "cast"}


@pytest.mark.parametrize("layout", ["row", "group"])
def test_integers_and_back_are_told(tmp_path: Path, states: dict, layout: str) -> None:
    states["copy"] = quantise(states["one"], 4, layout)
    found = edges_to(write(tmp_path, states), "copy")
    assert {name: kind for name, (kind, _) in found.items()} == {"one": "quantized"}
    assert found["one"][1]["bits"] == 4


def test_duplicates_are_listed_once_and_resized_ones_apart(tmp_path: Path, states: dict) -> None:
    states["copy"] = dict(states["one"])
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    states["wide"] = {
        key: torch.cat([tensor, torch.zeros(3, tensor.shape[1])]) if key in rows else tensor
        for key, tensor in states["two"].items()
    }
    found = [edge for edge in recover(write(tmp_path, states)).edges if edge.kind in ("duplicate", "resized")]
    pairs = sorted((Path(edge.parent).stem, Path(edge.child).stem, edge.kind) for edge in found)
    assert pairs == [("one", "copy", "duplicate"), ("two", "wide", "resized")]


def test_ties_is_told_by_its_sparsity(tmp_path: Path, states: dict) -> None:
    states["merged"] = ties(states["base"], [states["one"], states["two"]], [1.0, 1.0], 0.4, 0.8)
    found = edges_to(write(tmp_path, states), "merged")
    assert {name: kind for name, (kind, _) in found.items()} == {"one": "merge", "two": "merge"}
    evidence = found["one"][1]
    assert evidence["method"] == "ties"
    assert evidence["factor"] == pytest.approx(0.8, abs=0.01)
    assert evidence["left_at_base"] == pytest.approx(0.36, abs=0.03)


def test_a_stack_of_other_depth_names_its_layers(tmp_path: Path, states: dict) -> None:
    deep = dict(states["one"])
    for name, tensor in states["two"].items():
        if ".layers.1." in name:
            deep[name.replace(".layers.1.", ".layers.2.")] = tensor
            deep[name.replace(".layers.1.", ".layers.3.")] = tensor
    states["deep"] = deep
    found = edges_to(write(tmp_path, states), "deep")
    assert {name: kind for name, (kind, _) in found.items()} == {"one": "merge", "two": "merge"}
    taken = found["two"][1]["taken"]
    assert taken["model.layers.3.mlp.up_proj.weight"] == "model.layers.1.mlp.up_proj.weight"


def test_matrices_stored_flat_are_compared(tmp_path: Path, states: dict) -> None:
    states["merged"] = slerp(states["one"], states["three"], lambda name: 0.3)
    flat = {name: {key: tensor.flatten() for key, tensor in state.items()} for name, state in states.items()}
    found = edges_to(write(tmp_path, flat), "merged")
    assert set(found) == {"one", "three"}


def test_one_model_has_no_heritage(tmp_path: Path, states: dict) -> None:
    with pytest.raises(InvalidConfig, match="at least two"):
        recover(write(tmp_path, {"base": states["base"]}))


def test_what_is_written_is_what_was_grown(family: tuple[Grown, list[Path]]) -> None:
    grown, paths = family
    assert {path.stem for path in paths} == set(grown.states)
    name = grown.members[0].name
    assert torch.equal(load_file(paths[0])["lm_head.weight"], grown.states[name]["lm_head.weight"])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_grown_families(tmp_path: Path, seed: int) -> None:
    grown = grow(seed)
    paths = grown.save(tmp_path)
    assert max(grown.depth(member.name) for member in grown.members) >= 3
    for withheld in (frozenset(), frozenset({grown.members[0].name})):
        verdict = verdict_on(grown, paths, withheld)
        assert verdict.false_links == 0
        assert max(verdict.coefficient_errors, default=0.0) < 0.01


def test_a_tied_base_is_compared_with_fine_tunes_that_have_heads_of_their_own(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tied = initial(LlamaShape(vocabulary=200, tied=True), generator)
    untied = tied | {"lm_head.weight": tied["model.embed_tokens.weight"]}
    states = {"base": tied}
    for name in ("one", "two", "three"):
        states[name] = {key: t + 0.01 * torch.randn(t.shape, generator=generator) for key, t in untied.items()}
    for name, state in states.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"tie_word_embeddings": name == "base"}))
        save_file({key: tensor.clone() for key, tensor in state.items()}, tmp_path / name / "model.safetensors")
    heritage = recover([tmp_path / name for name in states], tmp_path / "base")
    found = {(Path(edge.parent).name, Path(edge.child).name) for edge in heritage.edges}
    assert found == {("base", "one"), ("base", "two"), ("base", "three")}


def test_a_real_recurrent_family_is_told_with_its_base_and_left_alone_without(shared: Path) -> None:
    folder = shared / "families/textgenrnn_author_v1"
    truth = {name: parent for name, parent in json.loads((folder / "truth.json").read_text()).items() if name[0] != "_"}
    paths = {name: folder / f"{name}.safetensors" for name in truth}
    heritage = recover(list(paths.values()), paths["base"])
    told = {Path(edge.child).stem: (Path(edge.parent).stem, edge.confidence) for edge in heritage.edges}
    assert {name: parent for name, (parent, _) in told.items()} == {n: p for n, p in truth.items() if p}
    assert min(confidence for _, confidence in told.values()) >= 0.9
    assert UNNAMED not in heritage.notes
    withheld = recover([path for name, path in paths.items() if name != "base"])
    assert UNNAMED in withheld.notes
    assert not [edge for edge in withheld.edges if edge.confidence >= 0.9]
    assert len({node.family for node in withheld.nodes}) == 1
    assert all(node.independence is not None and node.independence < 1e-6 for node in withheld.nodes)
