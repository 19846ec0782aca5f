"""Dry runs over models on the Hub, against a Hub on this machine: what they tell, and what they fetch for it."""

import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.hub import fetch_snapshot
from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.errors import KinshipError, MalformedCheckpoint, ReferenceNotFound, UnsupportedCheckpoint
from kinship.measures.comparison import ComparisonOptions
from kinship.measures.preflight import Preflight, preflight
from tests.conftest import SHAPES, MakeModel
from tests.kinship import adapters
from tests.kinship.checkpoints.test_hub import WEIGHTS, go_offline, kinship
from tests.kinship.hub_server import HubServer

MODELS, BASE = ["org/model-1", "org/model-2"], "org/base@v1"


@pytest.fixture(autouse=True)
def left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test leaves temporary files."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert list(place.iterdir()) == []


@pytest.fixture
def folders(hub: HubServer, make_model: MakeModel) -> dict[str, Path]:
    """A family on the Hub: the folder of each of `BASE` (in two shards) and `MODELS`."""
    base = make_model("base", dtype=torch.bfloat16)
    found = {name: make_model(name.removeprefix("org/"), seed, base) for seed, name in enumerate(MODELS, 1)}
    shard(base)
    for folder in (base, *found.values()):
        (folder / "README.md").write_text("A model")
    hub.add("org/base", base, "v1")
    for name, folder in found.items():
        hub.add(name, folder)
    return {BASE: base} | found


def shard(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    weight_map = {}
    for number, names in enumerate([sorted(tensors)[:3], sorted(tensors)[3:]], 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))


def size(*folders: Path) -> int:
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def header_bytes(file: Path) -> int:
    """What is asked for of a safetensors file: the length of its header, and then that and the header."""
    with open(file, "rb") as opened:
        return 8 + 8 + int(struct.unpack("<Q", opened.read(8))[0])


def requests(hub: HubServer, method: str) -> list[str]:
    return sorted(path.split("/resolve/")[0] + "/" + path.split("/")[-1] for kind, path in hub.log if kind == method)


def the_same(found: Preflight, wanted: Preflight) -> bool:
    """Whether two plans agree in all that follows from headers."""
    ours = {"seconds": 0.0, "bytes_to_download": 0, "weights_here": True}
    return replace(found, **ours) == replace(wanted, **ours)  # type: ignore[arg-type]


def test_plan_of_hub_models_is_that_of_their_folders(hub: HubServer, folders: dict[str, Path], cache: Path) -> None:
    found = preflight(MODELS, BASE)
    here = preflight([folders[name] for name in MODELS], folders[BASE])
    assert the_same(found, here)
    assert (here.bytes_to_download, here.weights_here) == (0, True)
    assert (found.bytes_to_download, found.weights_here) == (size(*folders.values()), False)
    assert found.bytes_to_read == here.bytes_to_read > 0
    assert found.seconds > 0
    assert not cache.exists()


def test_of_weights_only_headers_are_fetched(hub: HubServer, folders: dict[str, Path]) -> None:
    preflight(MODELS, BASE)
    shards = sorted(folders[BASE].glob("*.safetensors"))
    for file in shards:
        assert hub.sent[file.name] == header_bytes(file) < file.stat().st_size
    assert hub.sent[WEIGHTS] == sum(header_bytes(folders[name] / WEIGHTS) for name in MODELS)
    assert requests(hub, "GET").count(f"org/model-1/{WEIGHTS}") == 2
    assert "README.md" not in hub.sent
    assert hub.sent[INDEX_NAME] == (folders[BASE] / INDEX_NAME).stat().st_size


def test_weights_that_lie_on_another_host_are_found_there(hub: HubServer, folders: dict[str, Path]) -> None:
    hub.redirects = True
    found = preflight(MODELS, BASE)
    assert the_same(found, preflight([folders[name] for name in MODELS], folders[BASE]))
    assert found.bytes_to_download == size(*folders.values())
    assert hub.sent[WEIGHTS] == sum(header_bytes(folders[name] / WEIGHTS) for name in MODELS)
    assert sum(path.startswith("cdn/") for _, path in hub.log) == 2 * 4


def test_what_is_left_out_is_told_too(hub: HubServer, folders: dict[str, Path], make_model: MakeModel) -> None:
    grown = make_model("grown", shapes=SHAPES | {"model.embed_tokens.weight": (13, 8), "extra.weight": (2,)})
    hub.add("org/grown", grown)
    found = preflight(["org/grown"], BASE, options=ComparisonOptions(exclude="norm"))
    assert found.left_out["model.embed_tokens.weight"] == f"13 rows in org/grown, 11 in {BASE}"
    assert found.left_out["extra.weight"] == f"missing from {BASE}"
    assert found.tensors == len(SHAPES) - 2


# What the cache holds


def test_nothing_is_fetched_of_what_is_cached(
    hub: HubServer, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = preflight([folders[name] for name in MODELS], folders[BASE])
    for name in (BASE, *MODELS):
        open_checkpoint(name)
    hub.log.clear()
    plans = [preflight(MODELS, BASE)]
    assert {path.split("/")[0] for _, path in hub.log} == {"api"}
    hub.stop()
    plans.append(preflight(MODELS, BASE))
    go_offline(monkeypatch)
    plans.append(preflight(MODELS, BASE))
    for plan in plans:
        assert the_same(plan, here)
        assert (plan.bytes_to_download, plan.weights_here) == (0, True)


def test_of_a_family_cached_in_part_only_the_rest_counts(hub: HubServer, folders: dict[str, Path]) -> None:
    one, two = sorted(folders[BASE].glob("*.safetensors"))
    fetch_snapshot(MODELS[0])
    huggingface_hub.hf_hub_download("org/base", one.name, revision="v1", endpoint=hub.url)
    hub.sent.clear()
    found = preflight(MODELS, BASE)
    assert the_same(found, preflight([folders[name] for name in MODELS], folders[BASE]))
    assert found.bytes_to_download == size(folders[BASE], folders[MODELS[1]]) - one.stat().st_size
    assert not found.weights_here
    assert hub.sent[one.name] == 0
    assert hub.sent[two.name] == header_bytes(two)
    assert hub.sent[WEIGHTS] == header_bytes(folders[MODELS[1]] / WEIGHTS)


def test_weights_are_timed_where_only_other_files_are_missing(hub: HubServer, folders: dict[str, Path]) -> None:
    for name in (BASE, *MODELS):
        repo, _, revision = name.partition("@")
        huggingface_hub.snapshot_download(
            repo, revision=revision or None, endpoint=hub.url, ignore_patterns=["README.md"]
        )
    found = preflight(MODELS, BASE)
    assert (found.bytes_to_download, found.weights_here) == (3 * len("A model"), True)


def test_a_dry_run_keeps_what_a_moved_branch_left_in_the_cache(
    hub: HubServer, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, make_model: MakeModel
) -> None:
    for name in (BASE, *MODELS):
        open_checkpoint(name)
    hub.add(MODELS[0], make_model("moved", 5))
    assert preflight(MODELS, BASE).bytes_to_download > 0
    go_offline(monkeypatch)
    with open_checkpoint(MODELS[0]) as cached, open_checkpoint(folders[MODELS[0]]) as before:
        assert cached.digest == before.digest


def test_a_snapshot_named_twice_counts_once(hub: HubServer, folders: dict[str, Path]) -> None:
    commit = hub.repos[MODELS[0]].refs["main"]
    found = preflight([MODELS[0], f"{MODELS[0]}@{commit}"], MODELS[0])
    assert found.bytes_to_download == size(folders[MODELS[0]])
    assert found.models == 2


@pytest.mark.parametrize("offline", [True, False], ids=["offline mode", "hub down"])
def test_what_is_neither_cached_nor_reachable_is_not_found(
    hub: HubServer, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    go_offline(monkeypatch) if offline else hub.stop()
    with pytest.raises(ReferenceNotFound, match="not in the local Hub cache, and the Hub cannot be reached"):
        preflight(MODELS, BASE)


@pytest.mark.parametrize("access", ["private", "gated", "gated files"])
def test_what_may_not_be_read_is_refused_as_ever(hub: HubServer, folders: dict[str, Path], access: str) -> None:
    hub.add(MODELS[1], folders[MODELS[1]], access=access)
    with pytest.raises(ReferenceNotFound) as wanted:
        open_checkpoint(MODELS[1])
    with pytest.raises(ReferenceNotFound) as found:
        preflight(MODELS, BASE)
    assert (found.value.message, found.value.hint) == (wanted.value.message, wanted.value.hint)


def test_missing_revision_is_named(hub: HubServer, folders: dict[str, Path]) -> None:
    with pytest.raises(ReferenceNotFound, match="org/model-1 has no revision 'v9'"):
        preflight(["org/model-1@v9"], BASE)


# Adapters, tokenizers, subfolders


def test_adapters_on_the_hub_are_planned_from_their_headers(
    hub: HubServer, folders: dict[str, Path], make_model: MakeModel, tmp_path: Path
) -> None:
    base = make_model("whole")
    factors = adapters.factors(base, {adapters.Q0: 2, adapters.UP1: 4})
    whole = {"base_model.model.model.norm.weight": torch.ones(8)}
    folder = adapters.write(tmp_path / "adapter", factors | whole)
    hub.add("org/adapter", folder)
    hub.add("org/whole", base)
    found = preflight(["org/whole+org/adapter", MODELS[0]], "org/whole")
    here = preflight([f"{base}+{folder}", folders[MODELS[0]]], base)
    assert the_same(found, here)
    assert found.bytes_to_download == size(base, folder, folders[MODELS[0]])
    assert hub.sent["adapter_model.safetensors"] == header_bytes(folder / "adapter_model.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=r"org/adapter@\w{40} is a LoRA adapter, not a whole model"):
        preflight(["org/adapter"], "org/whole")


def test_tokenizers_are_read_only_where_tokens_are_matched(hub: HubServer, folders: dict[str, Path]) -> None:
    tokens = [chr(ord("a") + id) for id in range(11)]
    for number, (name, folder) in enumerate(folders.items()):
        vocabulary = {token: id for id, token in enumerate(tokens[number:])}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
        hub.add(name.removesuffix("@v1"), folder, "v1" if name == BASE else "main")
    preflight(MODELS, BASE)
    assert hub.sent["tokenizer.json"] == 0
    found = preflight(MODELS, BASE, options=ComparisonOptions(vocab="shared"))
    assert the_same(
        found, preflight([folders[name] for name in MODELS], folders[BASE], options=ComparisonOptions(vocab="shared"))
    )
    assert "9 tokens" in found.left_out["model.embed_tokens.weight"]
    assert hub.sent["tokenizer.json"] == sum((folder / "tokenizer.json").stat().st_size for folder in folders.values())


def test_subfolders_are_outlined(hub: HubServer, folders: dict[str, Path]) -> None:
    files = {f"runs/[1]/{file.name}": file.read_bytes() for file in folders[MODELS[0]].iterdir()}
    hub.add("org/deep", files | {WEIGHTS: b"not this one"})
    nested = {"path": "org/deep", "subfolder": "runs/[1]"}
    found = preflight([nested], BASE)  # type: ignore[list-item]
    assert the_same(found, preflight([folders[MODELS[0]]], folders[BASE]))
    assert hub.sent[WEIGHTS] == 0
    with pytest.raises(ReferenceNotFound, match="no subfolder 'nowhere'"):
        preflight([nested | {"subfolder": "nowhere"}], BASE)  # type: ignore[list-item]


# Hostile and broken


def safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def about(shape: list[int], begin: int, end: int) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}}).encode()


HOSTILE = {
    "empty": b"",
    "too short": b"\x08\0\0",
    "length beyond the file": safetensors(b"{}", b"\0" * 64, length=1 << 40),
    "length beyond the limit": safetensors(b"{}", b"\0" * 64, length=(1 << 63) + 1),
    "no JSON": safetensors(b"{" * 9, b"\0" * 8),
    "brackets": safetensors(b"[" * 4000),
    "offsets beyond the file": safetensors(about([4], 0, 16), b"\0" * 8),
    "shape and offsets differ": safetensors(about([5], 0, 16), b"\0" * 16),
    "gap": safetensors(about([2], 8, 16), b"\0" * 16),
    "bytes left over": safetensors(about([2], 0, 8), b"\0" * 16),
    "impossible shape": safetensors(about([1 << 62, 1 << 62], 0, 16), b"\0" * 16),
    "GGUF": b"GGUF" + b"\0" * 100,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_headers_from_afar_are_checked_as_those_here(
    hub: HubServer, folders: dict[str, Path], tmp_path: Path, content: bytes
) -> None:
    place = tmp_path / "hostile"
    place.mkdir()
    (place / WEIGHTS).write_bytes(content)
    commit = hub.add("org/hostile", place)
    with pytest.raises(KinshipError) as here:
        open_checkpoint(place)
    with pytest.raises(KinshipError) as there:
        preflight(["org/hostile"], BASE)
    assert type(there.value) is type(here.value)
    assert there.value.message == here.value.message.replace(str(place), f"org/hostile@{commit}")
    assert there.value.hint == here.value.hint


def test_a_size_that_no_file_can_have_is_refused(hub: HubServer, folders: dict[str, Path]) -> None:
    hub.sizes[WEIGHTS] = (1 << 63) - 1
    with pytest.raises(MalformedCheckpoint):
        preflight(MODELS, BASE)
    hub.sizes[WEIGHTS] = (folders[MODELS[0]] / WEIGHTS).stat().st_size - 4
    with pytest.raises(MalformedCheckpoint, match=rf"org/model-1@\w+/{WEIGHTS} is not a valid safetensors file"):
        preflight(MODELS, BASE)


def test_a_header_beyond_the_limit_is_not_fetched(hub: HubServer, folders: dict[str, Path]) -> None:
    hub.add("org/hostile", {WEIGHTS: safetensors(b" " * 1000, length=1 << 29)})
    hub.sizes[WEIGHTS] = 1 << 30
    with pytest.raises(MalformedCheckpoint, match=f"its header claims {1 << 29} bytes, the file has {1 << 30}"):
        preflight([BASE], "org/hostile")
    assert hub.sent[WEIGHTS] == 8


def test_configs_too_large_are_not_fetched(hub: HubServer, folders: dict[str, Path]) -> None:
    hub.sizes["config.json"] = 1 << 40
    with pytest.raises(MalformedCheckpoint, match=f"config.json has {1 << 40} bytes; at most"):
        preflight(MODELS, BASE)
    assert hub.sent["config.json"] == 0


def test_a_server_without_ranges_is_hung_up_on(hub: HubServer, make_model: MakeModel) -> None:
    """The sockets of both sides may hold a few MB that nobody reads."""
    folder = make_model("large", shapes={"w": (64, 1 << 18)})
    hub.add("org/large", folder)
    hub.ranges = False
    found = preflight(["org/large"], "org/large")
    assert the_same(found, preflight([folder], folder))
    assert hub.sent[WEIGHTS] < size(folder)


def test_a_part_that_breaks_off_is_told(hub: HubServer, folders: dict[str, Path]) -> None:
    hub.cuts[WEIGHTS] = [8, 20]
    with pytest.raises(ReferenceNotFound, match=rf"could not be downloaded from the Hub.*{WEIGHTS} broke off"):
        preflight([MODELS[0]], MODELS[0])


# The command line


def test_dry_run_end_to_end(hub: HubServer, folders: dict[str, Path], cache: Path) -> None:
    command = ["matrix", *MODELS, "--base", BASE, "--dry-run"]
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    outcome = kinship(*command, "--json", **settings)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    plan = json.loads(outcome.stdout)
    assert plan["schema"] == "kinship.matrix-plan/1"
    assert (plan["bytes_to_download"], plan["weights_here"]) == (size(*folders.values()), False)
    text = kinship(*command, **settings).stdout
    assert "to download" in text
    assert "timed on zeros" in text
    for name in (BASE, *MODELS):
        open_checkpoint(name)
    hub.stop()
    text = kinship(*command, **settings | {"HF_HUB_OFFLINE": "1"}).stdout
    assert "to read" in text
    assert "to download" not in text
    assert "zeros" not in text
