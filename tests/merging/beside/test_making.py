"""What a recipe has made beside its merge, on the small trained family."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, KinshipError, MalformedCheckpoint, MismatchedModels, UnsupportedCheckpoint
from merging.beside.attached import representations, with_experts, with_head
from merging.beside.files import read_beside
from merging.beside.surgery import representation_gap
from merging.data_driven.batches import TextBatches
from merging.data_driven.models import load_causal_lm
from merging.merge import plan_summary, planned, write_merge
from merging.output.verify import verify_folder
from merging.recipe.schema import parse_recipe
from search.config import parse_config
from search.running.founders import open_founders
from tests.evaluators.conftest import write_tokenizer

if TYPE_CHECKING:
    from service.demo.family import Family

COUNT = 2


def texts(family: "Family", founder: Path) -> list[str]:
    """Prompts, without answers, of a task that a founder was trained for."""
    told = json.loads((family.folder / "family.json").read_text())["specialists"]
    skill = next(one["own_skills"][0] for one in told if one["name"] == founder.name)
    rows = (Path(family.tasks) / f"{skill}.jsonl").read_text().splitlines()
    return [json.loads(row)["prompt"] for row in rows]


def recipe(family: "Family", count: int = COUNT, **others: Any) -> Any:
    founders = family.founders[:count]
    entries: list[dict[str, Any]] = [{"model": str(founder)} for founder in founders]
    if "surgery" in others:
        for entry, founder in zip(entries, founders, strict=True):
            entry["data"] = {"texts": texts(family, founder)[::2]}
    usual = {"merge_method": "smile", "base_model": str(family.base), "models": entries}
    return parse_recipe(usual | others)


def arithmetic(family: "Family", **surgery: Any) -> Any:
    return recipe(family, merge_method="task_arithmetic", parameters={"weight": 0.4}, surgery=surgery)


@pytest.fixture(scope="module")
def operated(family: "Family", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_merge(arithmetic(family, steps=200, rate=0.01), tmp_path_factory.mktemp("operated") / "out")


@pytest.fixture(scope="module")
def routed(family: "Family", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_merge(recipe(family, parameters={"rank": 4}), tmp_path_factory.mktemp("routed") / "out")


def test_heads_lower_the_gap_on_texts_that_they_have_not_seen(family: "Family", operated: Path) -> None:
    """It is what they minimise; and each on its own task's texts the more so."""
    with open_checkpoint(operated) as merge:
        heads, model = read_beside(merge).heads, load_causal_lm(merge)
    tokenizer = AutoTokenizer.from_pretrained(operated)
    assert list(heads) == [founder.name for founder in family.founders[:COUNT]]
    for founder in family.founders[:COUNT]:
        unseen = TextBatches(None, tokenizer, texts=texts(family, founder)[1::2])
        with open_checkpoint(founder) as checkpoint:
            own = representations(load_causal_lm(checkpoint), unseen)
        before = representation_gap(representations(model, unseen), own)
        after = {}
        for name, head in heads.items():
            with with_head(model, head):  # before the hook that collects
                after[name] = representation_gap(representations(model, unseen), own)
        assert after[founder.name] < 0.9 * before
        assert after[founder.name] == min(after.values())


def test_the_config_says_what_was_fitted(family: "Family", operated: Path) -> None:
    told = json.loads((operated / "surgery.json").read_text())
    with open_checkpoint(operated) as merge:
        assert told["weights"] == merge.digest
    for founder in family.founders[:COUNT]:
        facts = told["heads"][founder.name]
        assert facts["model"] == str(founder)
        assert facts["mended"] < facts["gap"]
        assert facts["tokens"] > 100
    assert load_file(operated / "surgery.safetensors")[f"{family.founders[0].name}.down"].shape[0] == told["rank"]
    assert all(check.ok for check in verify_folder(operated))
    assert "surgery.json" in (operated / "README.md").read_text()


def test_weights_are_those_of_the_merge_without_heads(family: "Family", operated: Path, tmp_path: Path) -> None:
    plain = recipe(family, merge_method="task_arithmetic", parameters={"weight": 0.4})
    folder = write_merge(plain, tmp_path / "plain")
    assert (folder / "model.safetensors").read_bytes() == (operated / "model.safetensors").read_bytes()
    with open_checkpoint(folder) as merge:
        assert not read_beside(merge).digest


def test_what_lies_beside_a_parent_is_not_handed_on(family: "Family", operated: Path, tmp_path: Path) -> None:
    content = {"merge_method": "linear", "models": [{"model": str(operated), "parameters": {"weight": 1}}]}
    child = write_merge(parse_recipe(content), tmp_path / "child")
    assert not [file.name for file in child.iterdir() if "surgery" in file.name]


def test_a_model_with_experts_is_no_parent(family: "Family", routed: Path, tmp_path: Path) -> None:
    """Its weights are the base's for the most part."""
    content = {"merge_method": "linear", "models": [{"model": str(routed), "parameters": {"weight": 1}}]}
    with pytest.raises(UnsupportedCheckpoint, match=r"keeps experts beside its weights \(smile.json\)"):
        write_merge(parse_recipe(content), tmp_path / "child")
    run = {"base": str(family.base), "founders": {"one": str(family.founders[0]), "two": str(routed)}}
    config = parse_config(run | {"evaluate": {"perplexity": [{"file": "unread.txt"}]}})
    with pytest.raises(UnsupportedCheckpoint, match="two keeps experts"):
        open_founders(config, None)


def logits(folder: Path, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, **options).logits
    return found


def served(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with open_checkpoint(folder) as checkpoint:
        beside, model = read_beside(checkpoint), load_causal_lm(checkpoint)
    with with_experts(model, beside.experts, beside.experts_per_token), torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


IDS = torch.arange(2, 26).reshape(2, 12) % 20


def test_one_expert_of_full_rank_is_its_fine_tune(family: "Family", tmp_path: Path) -> None:
    folder = write_merge(recipe(family, count=1, parameters={"rank": 4096}), tmp_path / "one")
    expected = logits(family.founders[0], IDS)
    assert served(folder, IDS) == pytest.approx(expected, abs=1e-3 * float(expected.abs().max()))
    assert float((logits(folder, IDS) - expected).abs().max()) > 0.1  # by the weights alone it is not


def test_lower_ranks_come_nearer_and_nearer(family: "Family", tmp_path: Path) -> None:
    expected = logits(family.founders[0], IDS)
    errors = []
    for rank in (1, 8, 32):
        folder = write_merge(recipe(family, count=1, parameters={"rank": rank}), tmp_path / str(rank))
        errors.append(float((served(folder, IDS) - expected).norm()))
    assert errors == sorted(errors, reverse=True)


def test_linear_layers_are_the_bases_and_the_rest_is_averaged(family: "Family", routed: Path) -> None:
    found, base = load_file(routed / "model.safetensors"), load_file(family.base / "model.safetensors")
    founders = [load_file(founder / "model.safetensors") for founder in family.founders[:COUNT]]
    told = json.loads((routed / "smile.json").read_text())
    for name, tensor in found.items():
        if name.removesuffix(".weight") in told["layers"]:
            assert tensor.equal(base[name])
        else:
            mean = torch.stack([founder[name] for founder in founders]).double().mean(0)
            assert tensor.double() == pytest.approx(mean, abs=1e-6)
    assert len(told["layers"]) > 5
    assert "no part of them" in (routed / "README.md").read_text()


def test_a_dry_run_counts_what_will_lie_beside(family: "Family", routed: Path, operated: Path, tmp_path: Path) -> None:
    for made, folder, name in (
        (recipe(family, parameters={"rank": 4}), routed, "smile"),
        (arithmetic(family, steps=200, rate=0.01), operated, "surgery"),
    ):
        written = (folder / "model.safetensors").stat().st_size + (folder / f"{name}.safetensors").stat().st_size
        with planned(made) as plan:
            told = plan_summary(plan, tmp_path / "out")
        assert written - 20_000 <= told["bytes_out"] <= 1.02 * written  # the names of tensors are not counted


def test_files_of_other_weights_or_of_nothing_are_refused(routed: Path, family: "Family", tmp_path: Path) -> None:
    def read(change: Mapping[str, Any] | str | None = None, tensors: Path | None = None) -> None:
        folder = shutil.copytree(routed, tmp_path / "copy", dirs_exist_ok=True)
        if isinstance(change, str):
            (folder / "smile.json").write_text(change)
        elif change is not None:
            told = json.loads((routed / "smile.json").read_text())
            (folder / "smile.json").write_text(json.dumps(told | change))
        if tensors is not None:
            shutil.copy(tensors, folder / "smile.safetensors")
        with open_checkpoint(folder) as checkpoint:
            read_beside(checkpoint)

    read()
    for change, message in (
        ({"weights": "0" * 64}, "other weights"),
        ({"tensors": "0" * 64}, "is not the file that smile.json is about"),
        ({"experts": ["a", "b", "c"]}, "lacks"),
        ({"schema": "kinship.smile/9"}, "schema"),
        ("{", "JSON"),
    ):
        with pytest.raises((MalformedCheckpoint, MismatchedModels), match=message):
            read(change)
    with pytest.raises(MalformedCheckpoint, match="is not the file"):
        read(tensors=family.base / "model.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"surgery": {"rank": 4}, "merge_method": "linear", "base_model": None}, "neither a file nor texts"),
        ({"surgery": {"rank": -1}}, "rank"),
        ({"surgery": {"rnak": 4}}, "rnak"),
        ({"data": {"texts": ["a"]}}, "looks at no data"),
        ({"parameters": {"rank": [1, 2]}}, "differ between tensors"),
        ({"tokenizer_source": "union"}, "whole models"),
    ],
)
def test_what_makes_no_sense_is_one_line(family: "Family", content: dict[str, Any], message: str) -> None:
    entries = [{"model": str(founder)} for founder in family.founders[:COUNT]]
    usual = {"merge_method": "smile", "base_model": str(family.base), "models": entries}
    given = {key: value for key, value in (usual | content).items() if value is not None}
    with pytest.raises(KinshipError, match=message), planned(parse_recipe(given)):
        pass


def test_a_model_listed_twice_has_no_two_heads(family: "Family") -> None:
    entries = [{"model": str(family.founders[0])}] * 2
    with pytest.raises(InvalidConfig, match="listed twice"):
        parse_recipe({"merge_method": "smile", "base_model": str(family.base), "models": entries})


@pytest.mark.parametrize("kind", ["GPTNeoX", "Qwen2Moe"])
def test_heads_need_no_parameters_by_the_names_of_files(kind: str, tmp_path: Path) -> None:
    """Renamed heads and fused experts, which statistics of weights have no place for."""
    import transformers

    for seed, name in enumerate(("one", "two")):
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        if kind == "Qwen2Moe":
            sizes |= {"num_experts": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
            sizes |= {"num_key_value_heads": 2, "num_experts_per_tok": 1}
        config = getattr(transformers, f"{kind}Config")(vocab_size=write_tokenizer(tmp_path / name), **sizes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
    entries = [{"model": str(tmp_path / name), "parameters": {"weight": 0.5}} for name in ("one", "two")]
    content = {"merge_method": "linear", "models": entries, "surgery": {"steps": 2}, "data": {"texts": ["abc=", "def"]}}
    merged = write_merge(parse_recipe(content), tmp_path / "out")
    with open_checkpoint(merged) as checkpoint:
        assert list(read_beside(checkpoint).heads) == ["one", "two"]
