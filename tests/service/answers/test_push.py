"""`kinship merge --push`, against a Hub on this machine."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml

from kinship.checkpoints.hub import fetch_snapshot
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, MalformedCheckpoint, OutputNotWritable, ReferenceNotFound
from service.answers.push import local, public_card, push_folder, require_pushable
from tests.conftest import MakeModel
from tests.service.conftest import Kinship
from tests.service.upload_server import TOKEN, UploadServer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadServer]:
    with UploadServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def recipe(make_model: MakeModel, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yml"
    models = [{"model": str(make_model(name, seed)), "parameters": {"weight": 1}} for seed, name in enumerate("ab")]
    path.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    return path


def test_merge_is_uploaded_in_one_commit(hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = kinship("merge", recipe, out, "--push", "org/merge", "--json")
    assert outcome.code == 0, outcome.err
    assert "org/merge" not in hub.private
    [commit] = hub.commits
    assert json.loads(outcome.out)["pushed"] == {
        "repo": "org/merge",
        "commit": commit,
        "url": f"{hub.url}/org/merge/commit/{commit}",
    }
    files = hub.files("org/merge")
    assert files.keys() == {file.name for file in out.iterdir()} | {".gitattributes"}
    changed = {file.name for file in out.iterdir() if file.read_bytes() != files[file.name]}
    assert changed == {"README.md", "SHA256SUMS"}
    with open_checkpoint("org/merge") as there, open_checkpoint(out) as here:
        assert there.digest == here.digest


def test_card_and_checksums_fit_what_was_uploaded(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path
) -> None:
    """The server refuses cards whose parents are no Hub ids, as the Hub does."""
    outcome = kinship("merge", recipe, tmp_path / "out", "--push", "org/merge")
    assert outcome.code == 0, outcome.err
    assert str(tmp_path / "a") in outcome.err.replace("\n", "")  # told before it is published
    assert f"Uploaded to {hub.url}/org/merge/commit/" in outcome.out
    listed = outcome.err.replace("\n", "").split("files to org/merge: ")[1].split(".Note")[0]
    assert {name.strip(" .") for name in listed.split(", ")} == {file.name for file in (tmp_path / "out").iterdir()}
    files = hub.files("org/merge")
    assert b"base_model" not in files["README.md"].split(b"---\n")[1]
    sums = [line.split("  ") for line in files["SHA256SUMS"].decode().splitlines()]
    assert len(sums) == len(files) - 2
    for digest, name in sums:
        assert hashlib.sha256(files[name]).hexdigest() == digest, name
    assert kinship("verify", tmp_path / "out").code == 0


def test_repository_is_private_on_request(hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path) -> None:
    assert kinship("merge", recipe, tmp_path / "out", "--push", "org/merge", "--private").code == 0
    assert hub.private == {"org/merge"}


def test_public_repository_is_refused_where_a_private_one_is_asked_for(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path
) -> None:
    hub.add("org/merge", {"notes.txt": b"mine"})
    outcome = kinship("merge", recipe, tmp_path / "out", "--push", "org/merge", "--private")
    assert outcome.code == 1
    assert "is public" in outcome.err
    assert not (tmp_path / "out").exists()
    alone = kinship("merge", recipe, tmp_path / "out", "--private")
    assert alone.code == 1
    assert "--push" in alone.err


def test_weights_there_are_replaced_only_with_force(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path
) -> None:
    before = {"model-00001-of-00002.safetensors": b"old", "pytorch_model.bin": b"old", "figure.png": b"mine"}
    old = hub.add("org/merge", before)
    refused = kinship("merge", recipe, tmp_path / "out", "--push", "org/merge", "--json")
    assert refused.code == 1
    assert json.loads(refused.out)["code"] == "output_exists"
    assert not (tmp_path / "out").exists(), "refused before the merge, not after it"
    assert hub.repos["org/merge"].refs["main"] == old
    assert kinship("merge", recipe, tmp_path / "out", "--push", "org/merge", "--force").code == 0
    files = hub.files("org/merge")
    assert not before.keys() & files.keys() - {"figure.png"}
    assert files["figure.png"] == b"mine"
    assert len(hub.commits) == 1


def test_repository_without_weights_is_filled(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path
) -> None:
    hub.add("org/merge", {"README.md": b"soon", ".gitattributes": b""})
    assert kinship("merge", recipe, tmp_path / "out", "--push", "org/merge").code == 0
    assert b"model-kinship" in hub.files("org/merge")["README.md"]


def test_dry_run_checks_the_repository_and_uploads_nothing(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path
) -> None:
    assert kinship("merge", recipe, tmp_path / "out", "--push", "org/merge", "--dry-run").code == 0
    assert not hub.repos
    hub.add("org/merge", {"model.safetensors": b"old"})
    assert kinship("merge", recipe, tmp_path / "out", "--push", "org/merge", "--dry-run").code == 1
    assert [method for method, _ in hub.log] == ["GET", "GET"]


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_token_is_asked_for_before_the_merge(
    hub: UploadServer,
    kinship: Kinship,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN")
    outcome = kinship("merge", recipe, tmp_path / "out", "--push", "org/merge")
    assert outcome.code == 1
    assert "hf auth login" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_offline_mode_is_told(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    outcome = kinship("merge", recipe, tmp_path / "out", "--push", "org/merge")
    assert outcome.code == 1
    assert "HF_HUB_OFFLINE" in outcome.err


@pytest.mark.parametrize(
    ("repo", "fails", "wanted"),
    [
        ("elsewhere/merge", {}, "a token that may"),
        ("org/merge", {"/preupload/": 403}, "a token that may"),
        ("org/merge", {"/lfs/": 400}, "Try again"),
        ("org/merge", {"/commit/": 400}, "Try again"),
    ],
)
def test_folder_stays_where_the_upload_fails(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path, repo: str, fails: dict[str, int], wanted: str
) -> None:
    hub.fails = fails
    outcome = kinship("merge", recipe, tmp_path / "out", "--push", repo, "--json")
    assert outcome.code == 1
    error = json.loads(outcome.out)
    assert error["code"] == "output_not_writable"
    assert repo in error["message"]
    assert wanted in error["hint"]
    assert str(tmp_path / "out") in error["hint"]
    assert "Traceback" not in outcome.err
    assert kinship("verify", tmp_path / "out").code == 0
    assert not hub.commits


def test_a_token_that_no_header_can_carry_is_not_shown(hub: UploadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_pasted\x0bwith-its-brackets")
    with pytest.raises(OutputNotWritable) as refusal:
        require_pushable("org/merge")
    assert "pasted" not in refusal.value.message
    with pytest.raises(ReferenceNotFound) as refused:
        fetch_snapshot("org/merge")
    assert "pasted" not in refused.value.message
    assert "brackets" not in refusal.value.message + refused.value.message


@pytest.mark.parametrize(
    "name", ["merge", "a/b/c", "org/a b", "/org/merge", "org/a--..b", "org/..", "org/a.git", "-/-", "org/%2e%2e"]
)
def test_names_that_are_none_are_refused(hub: UploadServer, name: str) -> None:
    with pytest.raises(InvalidConfig, match="no name"):
        require_pushable(name)


def test_models_of_this_machine_are_told_from_those_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("family/base").mkdir(parents=True)
    references = ["org/a", "org/a@main", "org/a+org/b", "family/base", "org/a+family/base", "/x/y", "../x", "m.bin"]
    assert local(references) == ["family/base", "org/a+family/base", "/x/y", "../x", "m.bin"]
    card = f"---\n{yaml.safe_dump({'base_model': references, 'base_model_relation': 'merge'})}---\ntext ---\n\nmore"
    _, front, text = public_card(card).split("---\n", 2)
    assert yaml.safe_load(front) == {"base_model": ["org/a", "org/b"], "base_model_relation": "merge"}
    assert text == "text ---\n\nmore"


def test_nothing_that_a_link_leads_to_is_uploaded(
    hub: UploadServer, kinship: Kinship, recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "a" / "LICENSE").symlink_to(tmp_path / "secret")
    outcome = kinship("merge", recipe, tmp_path / "out", "--push", "org/merge")
    assert outcome.code == 0, outcome.err
    assert "LICENSE is left out" in outcome.err.replace("\n", " ")
    assert "LICENSE" not in hub.files("org/merge")
    folder = tmp_path / "out"
    (folder / "later.txt").write_text("not of the merge")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(MalformedCheckpoint, match="outside the model's folder"):
        push_folder(folder, "org/other")
    assert "org/other" not in hub.repos
