from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kinship.checkpoints import references
from kinship.checkpoints.references import Reference, locate, parse_reference
from kinship.errors import InvalidConfig, ReferenceNotFound

Given = str | Path | Mapping[str, object]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make folders (or, with a suffix, files) under the current directory."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> Path:
        for name in names:
            place = tmp_path / name
            if place.suffix:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            else:
                place.mkdir(parents=True)
        return tmp_path

    return make


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None, str | None]]:
    """What was asked of the Hub, which has everything."""
    asked: list[tuple[str, str | None, str | None]] = []

    def fetch(repo: str, revision: str | None = None, subfolder: str | None = None) -> Path:
        asked.append((repo, revision, subfolder))
        snapshot = tmp_path / "snapshot"
        (snapshot / (subfolder or "")).mkdir(parents=True, exist_ok=True)
        return snapshot

    monkeypatch.setattr(references, "fetch_snapshot", fetch)
    return asked


# Forms


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("org/name", Reference("org/name")),
        ("org/name@v1.0", Reference("org/name", "v1.0")),
        ("org/name@refs/pr/3", Reference("org/name", "refs/pr/3")),
        (f"org/name@{'0' * 40}", Reference("org/name", "0" * 40)),
        ("a/folder/of/mine", Reference("a/folder/of/mine")),
        ("weights.safetensors", Reference("weights.safetensors")),
        (Path("some/folder"), Reference("some/folder")),
        ("org/name+org/lora", Reference("org/name", adapter=Reference("org/lora"))),
        ("org/name@v1+org/lora@v2", Reference("org/name", "v1", adapter=Reference("org/lora", "v2"))),
        ("base.safetensors+lora", Reference("base.safetensors", adapter=Reference("lora"))),
        ({"path": "org/name"}, Reference("org/name")),
        ({"path": Path("folder")}, Reference("folder")),
        ({"path": "org/name@v1"}, Reference("org/name", "v1")),
        ({"path": "org/name", "revision": "v1", "subfolder": "a/b"}, Reference("org/name", "v1", "a/b")),
        ({"path": "org/name", "revision": None, "subfolder": None, "adapter": None}, Reference("org/name")),
        ({"path": "org/name", "adapter": "org/lora@v2"}, Reference("org/name", adapter=Reference("org/lora", "v2"))),
        (
            {"path": "org/name", "adapter": {"path": "org/lora", "subfolder": "final"}},
            Reference("org/name", adapter=Reference("org/lora", None, "final")),
        ),
        (
            {"path": "org/name+org/lora", "subfolder": "base"},
            Reference("org/name", None, "base", Reference("org/lora")),
        ),
    ],
    ids=str,
)
@pytest.mark.usefixtures("here")
def test_every_form_is_parsed(given: Given, expected: Reference) -> None:
    assert parse_reference(given) == expected


def test_text_of_a_reference_names_all_its_parts() -> None:
    adapter = Reference("org/lora", "v2", "final")
    assert str(Reference("org/name", "v1", "base", adapter)) == "org/name@v1:base+org/lora@v2:final"


# What exists locally comes first


@pytest.mark.parametrize("name", ["org/name", "a+b", "org/name@v1", "x@y+z@w", "+leading", "trailing+", "@", "a++b"])
def test_what_exists_as_written_is_a_path(here: Callable[..., Path], name: str) -> None:
    here(name)
    assert parse_reference(name) == Reference(name)
    assert parse_reference({"path": name}) == Reference(name)
    assert locate(parse_reference(name)) == Path(name)


@pytest.mark.parametrize(
    ("existing", "given", "expected"),
    [
        (["base", "lora"], "base+lora", Reference("base", adapter=Reference("lora"))),
        (["b+a+se", "lora"], "b+a+se+lora", Reference("b+a+se", adapter=Reference("lora"))),
        (["base", "lo+ra"], "base+lo+ra", Reference("base", adapter=Reference("lo+ra"))),
        (["b+ase", "lo+ra"], "b+ase+lo+ra", Reference("b+ase", adapter=Reference("lo+ra"))),
        (["lo+ra"], "org/name@v1+lo+ra", Reference("org/name", "v1", adapter=Reference("lo+ra"))),
        (["base@v1", "lora@v2"], "base@v1+lora@v2", Reference("base@v1", adapter=Reference("lora@v2"))),
        (["ba+se.safetensors"], "ba+se.safetensors+o/l", Reference("ba+se.safetensors", adapter=Reference("o/l"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_plus_is_split_where_the_left_side_exists(
    here: Callable[..., Path], existing: list[str], given: str, expected: Reference
) -> None:
    here(*existing)
    assert parse_reference(given) == expected


@pytest.mark.usefixtures("here")
def test_relative_paths_count_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "below" / "a+b").mkdir(parents=True)
    assert parse_reference("a+b") == Reference("a", adapter=Reference("b"))
    assert parse_reference("a+b", tmp_path / "below") == Reference("a+b")
    assert locate(Reference("a+b"), tmp_path / "below") == tmp_path / "below" / "a+b"
    assert locate(Reference(str(tmp_path)), tmp_path / "below") == tmp_path


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my+model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_reference("~/my+model") == Reference("~/my+model")
    assert locate(Reference("~/my+model")) == tmp_path / "my+model"


# Where it lies


@pytest.mark.usefixtures("here")
def test_hub_is_asked_for_what_is_not_here(hub: list[tuple[str, str | None, str | None]], tmp_path: Path) -> None:
    assert locate(parse_reference("org/name@v1")) == tmp_path / "snapshot"
    given = {"path": "org/name", "revision": "v2", "subfolder": "deep/er", "adapter": "org/lora"}
    assert locate(parse_reference(given)) == tmp_path / "snapshot" / "deep" / "er"
    assert hub == [("org/name", "v1", None), ("org/name", "v2", "deep/er")]


def test_hub_is_not_asked_for_what_is_here(
    here: Callable[..., Path], hub: list[tuple[str, str | None, str | None]]
) -> None:
    here("org/name/part", "one.safetensors")
    assert locate(parse_reference("org/name")) == Path("org/name")
    assert locate(parse_reference({"path": "org/name", "subfolder": "part"})) == Path("org/name/part")
    assert locate(parse_reference("one.safetensors")) == Path("one.safetensors")
    assert hub == []


@pytest.mark.parametrize("given", ["name", "./org/name", "../name", "a/b/c", "/no/such", "org/na me", "org/"])
@pytest.mark.usefixtures("here")
def test_only_what_looks_like_a_hub_id_is_asked_for(hub: list[tuple[str, str | None, str | None]], given: str) -> None:
    with pytest.raises(ReferenceNotFound, match="does not exist") as refusal:
        locate(Reference(given))
    assert "Hub id" in refusal.value.hint
    assert hub == []


# Refusals


@pytest.mark.parametrize("end", ["", "/", "/tree/main", "/blob/main/model.safetensors"])
@pytest.mark.usefixtures("here")
def test_the_address_of_a_page_on_the_hub_is_told_by_its_id(hub: list[object], end: str) -> None:
    with pytest.raises(ReferenceNotFound) as refusal:
        locate(parse_reference(f"https://huggingface.co/org/name-1.5{end}"))
    assert refusal.value.hint.endswith(" org/name-1.5.")
    assert hub == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "path is missing"),
        ({"revision": "v1"}, "path is missing"),
        ({"path": "a/b", "adaptor": "c"}, "unknown: adaptor"),
        ({"path": "a/b", 3: "c", None: "d"}, "unknown: 3, None"),
        ({"path": None}, "path of a model reference must be text, not None"),
        ({"path": ["a"]}, "path of a model reference must be text"),
        ({"path": "a/b", "revision": 1.0}, "revision of a model reference must be text, not 1.0"),
        ({"path": "a/b", "subfolder": 3}, "subfolder of a model reference must be text"),
        ({"path": "a/b", "adapter": 3}, "adapter must be a model reference, not 3"),
        ({"path": "a/b", "adapter": ["c/d"]}, "adapter must be a model reference"),
        ({"path": "a/b", "adapter": ""}, "reference is empty"),
        ({"path": ""}, "reference is empty"),
        ({"path": "a/b+c/d", "adapter": "e/f"}, "names an adapter already"),
        ({"path": "a/b@v1", "revision": "v2"}, "names a revision already"),
        ({"path": "a/b", "adapter": {"path": "c/d", "adapter": "e/f"}}, "names two adapters, c/d and e/f"),
        ("a/b+c/d+e/f", "names two adapters, c/d and e/f"),
        ("", "reference is empty"),
        ("  ", "reference is empty"),
        ("a/b+", "reference is empty"),
        ("+a/b", "reference is empty"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("here")
def test_reference_that_makes_no_sense_is_refused(given: Given, reason: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        parse_reference(given)
    assert reason in refusal.value.message


def test_local_path_has_no_revision(here: Callable[..., Path]) -> None:
    here("org/name")
    with pytest.raises(InvalidConfig, match=r"org/name is a local path, which has no revision 'v1'"):
        locate(parse_reference("org/name@v1"))


def test_local_subfolder_must_be_there_and_inside(here: Callable[..., Path]) -> None:
    root = here("model/part", "secret")
    (root / "model" / "link").symlink_to(root / "secret")
    for subfolder in ("nowhere", "link"):
        with pytest.raises(ReferenceNotFound, match=f"model has no subfolder '{subfolder}'"):
            locate(Reference("model", subfolder=subfolder))
    for subfolder in ("..", "part/../../secret", str(root / "secret")):
        with pytest.raises(InvalidConfig, match="leads out of model"):
            locate(Reference("model", subfolder=subfolder))
