"""References to the Hugging Face Hub, against a Hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix
from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.errors import InvalidConfig, MalformedCheckpoint, ReferenceNotFound, UnsupportedCheckpoint
from tests.conftest import MakeModel
from tests.kinship.hub_server import HubServer

WEIGHTS = "model.safetensors"


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def holds(reference: object, folder: Path) -> bool:
    """Whether ``reference`` opens as the very weights of ``folder``."""
    with open_checkpoint(reference) as found, open_checkpoint(folder) as wanted:  # type: ignore[arg-type]
        return found.digest == wanted.digest


def snapshots(cache: Path) -> list[str]:
    return sorted(str(file.relative_to(cache)) for file in cache.glob("models--*/snapshots/*/**/*"))


# What is fetched


def test_model_is_fetched_and_its_folder_is_named_by_the_commit(hub: HubServer, make_model: MakeModel) -> None:
    folder = make_model("tuned")
    commit = hub.add("org/tuned", folder)
    with open_checkpoint("org/tuned") as checkpoint:
        assert checkpoint.id == "org/tuned"
        assert checkpoint.path.name == commit
        assert checkpoint.config["model_type"] == "llama"
    assert holds("org/tuned", folder)


def test_branch_tag_and_commit_are_told_apart(hub: HubServer, make_model: MakeModel) -> None:
    folders = {ref: make_model(ref.replace("/", "-"), seed) for seed, ref in enumerate(["main", "v1.0", "refs/pr/1"])}
    commits = {ref: hub.add("org/tuned", folder, ref) for ref, folder in folders.items()}
    assert holds("org/tuned", folders["main"])
    for ref, folder in folders.items():
        assert holds(f"org/tuned@{ref}", folder)
        assert holds(f"org/tuned@{commits[ref]}", folder)
        assert holds({"path": "org/tuned", "revision": ref}, folder)


def test_moved_branch_is_followed(hub: HubServer, make_model: MakeModel) -> None:
    before, after = make_model("before", 1), make_model("after", 2)
    hub.add("org/tuned", before)
    assert holds("org/tuned", before)
    hub.add("org/tuned", after)
    assert holds("org/tuned", after)


def test_subfolder_is_opened_and_nothing_else_is_fetched(hub: HubServer, make_model: MakeModel) -> None:
    top, inner = make_model("top", 1), make_model("inner", 2)
    shutil.copytree(inner, top / "runs" / "one [1]")
    shutil.copytree(inner, top / "runs" / "one [1]" / "checkpoint-5")
    hub.add("org/tuned", top)
    assert holds({"path": "org/tuned", "subfolder": "runs/one [1]"}, inner)
    assert hub.downloaded() == {"runs/one [1]/model.safetensors", "runs/one [1]/config.json"}
    assert holds("org/tuned", top)


def test_only_weights_configs_and_tokenizers_are_asked_for(hub: HubServer, make_model: MakeModel) -> None:
    wanted = {"tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "LICENSE", "README.md"}
    unwanted = {"pytorch_model.bin", "modeling.py", "model.gguf", "onnx/model.safetensors", "original/params.json"}
    folder = make_model("tuned")
    for name in wanted | unwanted:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    hub.add("org/tuned", folder)
    open_checkpoint("org/tuned")
    assert hub.downloaded() == wanted | {WEIGHTS, "config.json"}
    assert not any(name in path for _, path in hub.log for name in unwanted)


def test_adapter_and_base_may_both_be_on_the_hub(hub: HubServer, make_model: MakeModel, tmp_path: Path) -> None:
    base, adapter = make_model("base"), tmp_path / "adapter"
    adapter.mkdir()
    module = "model.layers.0.self_attn.q_proj"
    factors = {"A": torch.ones(2, 8), "B": torch.full((8, 2), 0.5)}
    save_file(
        {f"base_model.model.{module}.lora_{side}.weight": factor for side, factor in factors.items()},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    hub.add("org/base", base, "v2")
    hub.add("org/adapter", {"README.md": b"See lora/"})
    hub.add("org/adapter", {f"lora/{file.name}": file.read_bytes() for file in adapter.iterdir()}, "deep")
    weight = f"{module}.weight"
    wanted = load_file(base / WEIGHTS)[weight] + 2.0
    nested = {"path": "org/base", "revision": "v2", "adapter": {"path": "org/adapter@deep", "subfolder": "lora"}}
    with open_checkpoint(nested) as checkpoint:
        assert checkpoint.id == "org/base@v2+org/adapter@deep:lora"
        assert torch.equal(checkpoint.tensor(weight), wanted)
    hub.add("org/adapter", adapter)
    with open_checkpoint("org/base@v2+org/adapter") as checkpoint:
        assert torch.equal(checkpoint.tensor(weight), wanted)


def test_base_is_not_fetched_for_what_is_no_adapter(hub: HubServer, make_model: MakeModel) -> None:
    hub.add("org/base", make_model("base"))
    hub.add("org/other", make_model("other"))
    with pytest.raises(UnsupportedCheckpoint, match="org/other is no LoRA adapter"):
        open_checkpoint("org/base+org/other")
    assert not any("org/base" in path for _, path in hub.log)


def test_repository_of_nothing_that_is_read_is_told_as_such(hub: HubServer) -> None:
    hub.add("org/quantised", {"model-Q4_K_M.gguf": b"GGUF"})
    with pytest.raises(ReferenceNotFound, match="org/quantised has no safetensors file and no config on the Hub"):
        open_checkpoint("org/quantised")


def test_repository_of_pickles_holds_no_weights(hub: HubServer) -> None:
    hub.add("org/old", {"pytorch_model.bin": b"\x80\x04.", "config.json": b"{}"})
    with pytest.raises(UnsupportedCheckpoint, match="holds no weights") as refusal:
        open_checkpoint("org/old")
    assert "never downloaded" in refusal.value.hint
    assert hub.downloaded() == {"config.json"}


# What is not to be had


def refusal_of(reference: object) -> ReferenceNotFound:
    with pytest.raises(ReferenceNotFound) as refusal:
        open_checkpoint(reference)  # type: ignore[arg-type]
    assert refusal.value.hint
    return refusal.value


def test_missing_model_says_that_it_is_neither_here_nor_there(hub: HubServer) -> None:
    error = refusal_of("org/nothing")
    assert "'org/nothing'" in error.message
    assert "no such folder here" in error.message
    assert "spelling" in error.hint


def test_private_model_asks_for_a_login(hub: HubServer, make_model: MakeModel) -> None:
    hub.add("org/secret", make_model("secret"), access="private")
    assert "hf auth login" in refusal_of("org/secret").hint


@pytest.mark.parametrize("access", ["gated", "gated files"])
def test_gated_model_asks_to_accept_its_terms(hub: HubServer, make_model: MakeModel, cache: Path, access: str) -> None:
    hub.add("org/gated", make_model("gated"), access=access)
    error = refusal_of("org/gated")
    assert "org/gated is gated" in error.message
    assert "terms" in error.hint
    assert snapshots(cache) == []


def test_missing_revision_is_named(hub: HubServer, make_model: MakeModel) -> None:
    hub.add("org/tuned", make_model("tuned"))
    assert "org/tuned has no revision 'v9'" in refusal_of("org/tuned@v9").message
    assert "has no revision" in refusal_of(f"org/tuned@{'0' * 40}").message


def test_missing_subfolder_is_named(hub: HubServer, make_model: MakeModel) -> None:
    hub.add("org/tuned", make_model("tuned"))
    assert "no subfolder 'nowhere'" in refusal_of({"path": "org/tuned", "subfolder": "nowhere"}).message


@pytest.mark.parametrize("subfolder", ["..", "../../..", "/etc", "a/../../b"])
def test_subfolder_does_not_lead_out(hub: HubServer, make_model: MakeModel, subfolder: str) -> None:
    hub.add("org/tuned", make_model("tuned"))
    with pytest.raises(InvalidConfig, match="leads out"):
        open_checkpoint({"path": "org/tuned", "subfolder": subfolder})
    assert hub.log == []


@pytest.mark.parametrize("revision", ["../../outside", "/etc/hostname", "a..b"])
def test_revision_does_not_lead_out_of_the_cache(
    hub: HubServer, make_model: MakeModel, cache: Path, revision: str
) -> None:
    hub.add("org/tuned", make_model("tuned"), revision)
    assert "is no revision" in refusal_of({"path": "org/tuned", "revision": revision}).message
    assert hub.log == []
    assert not cache.exists()


@pytest.mark.parametrize("reference", ["./org", "../org", "org", "org/a/b", "org/-x", ".org/x"])
def test_what_cannot_be_a_hub_id_is_not_asked_for(hub: HubServer, reference: str) -> None:
    assert reference in refusal_of(reference).message
    assert hub.log == []


def test_broken_hub_is_told_from_a_missing_model(hub: HubServer, make_model: MakeModel) -> None:
    hub.add("org/tuned", make_model("tuned"))
    hub.broken = True
    assert "cannot be reached" in refusal_of("org/tuned").message


# Offline


def test_second_use_needs_no_hub(hub: HubServer, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model("tuned")
    commit = hub.add("org/tuned", folder)
    open_checkpoint("org/tuned")
    hub.stop()
    for reference in ("org/tuned", "org/tuned@main", f"org/tuned@{commit}"):
        assert holds(reference, folder)
    go_offline(monkeypatch)
    assert holds("org/tuned", folder)


def test_second_use_asks_for_no_file_again(hub: HubServer, make_model: MakeModel) -> None:
    hub.add("org/tuned", make_model("tuned"))
    open_checkpoint("org/tuned")
    hub.log.clear()
    open_checkpoint("org/tuned")
    assert hub.downloaded() == set()


@pytest.mark.parametrize("offline", [True, False], ids=["offline mode", "hub down"])
def test_model_that_was_never_fetched_is_not_found(
    hub: HubServer, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    hub.add("org/tuned", make_model("tuned"))
    if offline:
        go_offline(monkeypatch)
    else:
        hub.stop()
    error = refusal_of("org/tuned")
    assert "not in the local Hub cache" in error.message
    assert "HF_HUB_OFFLINE" in error.hint
    assert hub.log == []


# Broken downloads


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """`huggingface_hub` sleeps a second before each of its retries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("impatient")
def test_download_cut_short_goes_on_where_it_stopped(hub: HubServer, make_model: MakeModel) -> None:
    folder = make_model("tuned")
    hub.add("org/tuned", folder)
    hub.cuts[WEIGHTS] = [1000, 0, 5000]
    assert holds("org/tuned", folder)
    assert sum(path.endswith(WEIGHTS) for method, path in hub.log if method == "GET") == 4


@pytest.mark.usefixtures("impatient")
def test_download_that_always_breaks_leaves_nothing_that_is_used(
    hub: HubServer, make_model: MakeModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model("tuned")
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    weight_map = {}
    for number, names in enumerate([sorted(tensors)[:3], sorted(tensors)[3:]], 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))
    hub.add("org/tuned", folder)
    hub.cuts[file] = [1000] + [0] * 20
    error = refusal_of("org/tuned")
    assert "org/tuned could not be downloaded" in error.message
    assert not list(cache.rglob("*.incomplete"))
    assert not any(name.endswith(file) for name in snapshots(cache))

    go_offline(monkeypatch)
    assert "only in part in the local Hub cache" in refusal_of("org/tuned").message
    shutil.rmtree(next(cache.glob("models--*/trees")))  # as versions that keep no list of files leave it
    huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE.clear()
    with pytest.raises(MalformedCheckpoint, match="which is not a file in that folder"):
        open_checkpoint("org/tuned")
    next(cache.glob(f"models--*/snapshots/*/{INDEX_NAME}")).unlink(missing_ok=True)
    with pytest.raises(MalformedCheckpoint, match="1 of the 2 shards"):
        open_checkpoint("org/tuned")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub.cuts.clear()
    assert holds("org/tuned", folder)


# The cache


def test_links_into_the_stores_of_the_cache_are_followed_and_others_are_not(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of large files: snapshot -> the repository's blobs -> the blobs of the whole cache."""
    weights, secret = make_model("tuned") / WEIGHTS, make_model("secret") / WEIGHTS
    cache = tmp_path / "cache"
    repo, store = cache / "models--org--tuned", cache / "blobs" / "ab" / "abc"
    snapshot = repo / "snapshots" / ("1" * 40) / "sub"
    for folder in (store.parent, repo / "blobs", snapshot):
        folder.mkdir(parents=True)
    shutil.copy(weights, store)
    (repo / "blobs" / "etag").symlink_to("../../blobs/ab/abc")
    (snapshot / WEIGHTS).symlink_to("../../../blobs/etag")
    assert holds(snapshot, weights.parent)
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(secret)
    with pytest.raises(MalformedCheckpoint, match="outside the model's folder"):
        open_checkpoint(snapshot)


# The command line


def kinship(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from service.cli import main; sys.argv[0] = 'kinship'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


def test_kinship_matrix_of_hub_models_end_to_end(hub: HubServer, make_model: MakeModel, cache: Path) -> None:
    base = make_model("base")
    models = [make_model(f"model-{seed}", seed, base) for seed in (1, 2)]
    hub.add("org/base", base, "v1")
    for model in models:
        hub.add(f"org/{model.name}", model)
    command = ["matrix", "org/model-1", "org/model-2", "--base", "org/base@v1", "--json"]
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache)}
    online = kinship(*command, **settings, HF_HUB_OFFLINE="0")
    assert online.returncode == 0, online.stderr
    found = json.loads(online.stdout)
    assert (found["base"], found["ids"]) == ("org/base@v1", ["org/model-1", "org/model-2"])
    assert np.array_equal(found["values"], kinship_matrix(models, base).values)

    hub.stop()
    offline = kinship(*command, **settings, HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout
