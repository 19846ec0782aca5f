"""Names that whoever made a model chose to harm its reader, through every command and every kind of output.

What holds for all of them: exit code 0, nothing on a terminal but letters that are seen, one line where one was meant,
JSON that reads back as it was, files that their own formats' readers take, and names that are text in them.
"""

import csv
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import networkx as nx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinship.checkpoints.references import short_names
from kinship.outside import captions, in_csv, in_markdown, on_terminal
from tests.conftest import MakeModel
from tests.search.runs import Scene
from tests.service.conftest import Kinship, Outcome

if TYPE_CHECKING:
    from service.demo.family import Family

NAMES = (
    "llama[v1]", "a[/]b", "b[", ":smile: x",  # Rich's markup
    "cost$5 and $6", "$\\frac{", "_hidden",  # formulas; labels that a legend leaves out
    "\x1b[31mRED\x1b]0;TITLE\x07", "\x9b31mC1", "up\rdown\b", "tab\t",  # what terminals obey
    "line1\nFORGED: all checks passed", "\u2028FORGED", "evil\u202efdp.exe", "zero\u200bwidth\ufeff\u3164",
    "=cmd|' calc'!A0", "+1", "-x", "@SUM(A1)", "\uff1dcmd",  # formulas of spreadsheets
    os.fsdecode(b"bad\xff\xfename"),  # not UTF-8
    "<img src=x onerror=alert(1)>", "\" onload=\"alert(1)", "x'y;(a,b):1", "]]>&lt;", "{{7*7}}{% for x in y %}",
    "%{y} %%{init: {}}%%", "`b` | c", "```", "~~~\n---", "naïve 🧬 模型", "n" * 200,
)  # fmt: skip


class Tags(HTMLParser):
    """Counts elements by name, and attributes that run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.handlers = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found[tag] = self.found.get(tag, 0) + 1
        self.handlers += sum(name.startswith("on") for name, _ in attributes)


def tags(page: str) -> Tags:
    parser = Tags()
    parser.feed(page)
    return parser


def require_plain(outcome: Outcome, code: int = 0) -> None:
    """Only letters that are seen, and no line that a name forged."""
    assert outcome.code == code, outcome.err
    lines = [line for line in (outcome.out + outcome.err).split("\n") if not line.isprintable()]
    assert not lines
    assert "Traceback" not in outcome.err
    assert not [line for line in outcome.out.splitlines() if line.startswith("FORGED")]


def family_of(make_model: MakeModel, folder: Path, names: Sequence[str]) -> tuple[list[str], str]:
    """Models called ``names`` in ``folder``, the one that ``make_model`` writes to, and their base."""
    shapes = {"w": (8, 8), "v": (8, 8)}
    base = make_model("base", shapes=shapes)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)  # of names with a slash
    made = [make_model(name, seed, base, shapes=shapes) for seed, name in enumerate(names, 1)]
    return [str(path) for path in made], str(base)


def linked(folder: Path, name: str, target: Path) -> str:
    """``target`` by another name."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(target.absolute(), target_is_directory=True)
    return str(folder / name)


def outputs(folder: Path, name: str, *suffixes: str) -> list[object]:
    return [word for suffix in suffixes for word in ("--out", folder / f"{name}.{suffix}")]


def require_xml(file: Path, names: Sequence[str]) -> None:
    texts = {element.text for element in ElementTree.fromstring(file.read_bytes()).iter() if element.text}
    assert texts >= set(names)


def require_matrix_files(folder: Path, models: list[str]) -> None:
    """The files that `matrix` wrote: ids are exact where a format can hold them, captions elsewhere."""
    shown = captions(short_names(models))
    assert json.loads((folder / "m.json").read_text(encoding="utf-8"))["ids"] == models
    with open(folder / "m.csv", encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[1:] == [row[0] for row in rows] == [in_csv(model) for model in models]
    assert {len(row) for row in rows} == {1 + len(models)}
    require_xml(folder / "m.svg", shown)
    assert (folder / "m.png").read_bytes().startswith(b"\x89PNG\r\n")
    found = tags((folder / "m.html").read_text(encoding="utf-8"))
    assert not found.handlers
    assert found.found.keys() <= {"html", "head", "meta", "title", "style", "body", "h1", "p", "div", "script"}


def test_matrix(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    models, base = family_of(make_model, tmp_path, NAMES)
    outs = [
        word for suffix in ("csv", "json", "svg", "png", "html", "npz") for word in ("--out", tmp_path / f"m.{suffix}")
    ]
    require_plain(kinship("matrix", *models, "--base", base, *outs))
    require_matrix_files(tmp_path, models)
    answer = json.loads(kinship("matrix", *models, "--base", base, "--json").out)
    assert answer["ids"] == list(answer["relative_norms"]) == models
    few = models[:6]
    require_plain(kinship("matrix", *few, "--base", base, "--by", "tensor", *outputs(tmp_path, "by", "csv", "svg")))
    require_xml(tmp_path / "by.svg", ["w", "v"])
    require_plain(kinship("advise", *few, "--base", base))


def test_one_line_a_model_however_it_is_called(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    """Literally, so that nobody takes one model for another."""
    models, base = family_of(make_model, tmp_path, ["llama[v1]", "a[/]b", "line1\nFORGED: all checks passed"])
    assert "llama[v1]" in kinship("matrix", *models, "--base", base).out
    for model in models:
        outcome = kinship("verify", model)
        require_plain(outcome)
        assert f"{on_terminal(model)} is whole." in outcome.out


def test_trees(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    models, base = family_of(make_model, tmp_path, NAMES)
    folders = [Path(model) for model in models]
    for folder, parent in pairwise(folders):
        card: dict[str, Any] = {"license": f"terms of {parent.name}", "tags": [f"contaminated {folder.name}"]}
        card["base_model"] = [parent.name, str(parent)]
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card, allow_unicode=False)}---\n", encoding="utf-8")
    require_plain(kinship("tree", *models, "--base", base, *outputs(tmp_path, "d", "nwk", "svg")))
    require_plain(kinship("tree", *models, "--base", base, "--joining", "nj"))
    require_xml(tmp_path / "d.svg", captions(short_names(models)))
    newick = (tmp_path / "d.nwk").read_text(encoding="utf-8")
    assert newick.count("\n") == 1
    assert re.sub(r"'(?:[^']|'')*'", "", newick).count(",") == len(models) - 1

    few = models[:12] + models[18:]
    outs = outputs(tmp_path, "t", "html", "svg", "png", "json", "graphml", "mmd")
    require_plain(kinship("tree", *few, "--recorded", *outs))
    answer = json.loads(kinship("tree", *few, "--recorded", "--json").out)
    assert set(few) <= {node["id"] for node in answer["nodes"]}
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8")) == answer
    page = tags((tmp_path / "t.html").read_text(encoding="utf-8"))
    assert not page.handlers
    assert "img" not in page.found
    assert page.found["script"] == 4
    ElementTree.fromstring((tmp_path / "t.svg").read_bytes())
    assert len(nx.parse_graphml((tmp_path / "t.graphml").read_text(encoding="utf-8"))) == len(answer["nodes"])
    mermaid = (tmp_path / "t.mmd").read_text(encoding="utf-8").splitlines()
    assert all(
        re.fullmatch(r'flowchart TD|    m\d+\["[^"`$%]*"\]|    m\d+ -->\|"[^"]*"\| m\d+|    class.*', line)
        for line in mermaid
    )
    require_plain(kinship("tree", *models[:3], "--recover"))


def test_merge_and_its_card(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    models, _ = family_of(make_model, tmp_path, [name for name in NAMES if name.isprintable() or "\n" in name])
    for model in models:
        card = {"license": "mit\n\n# FORGED | `x` <img src=x>"}
        (Path(model) / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n", encoding="utf-8")
    recipe, out = tmp_path / "recipe.yml", tmp_path / "out <b>`x`|[y](z)"
    entries = [{"model": model, "parameters": {"weight": 1}} for model in models]
    recipe.write_text(yaml.safe_dump({"merge_method": "linear", "models": entries}), encoding="utf-8")
    require_plain(kinship("merge", recipe, tmp_path / "plan", "--dry-run"))
    require_plain(kinship("merge", recipe, out))
    _, front, text = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == models
    head, made, *terms = text.split("````yaml")[0].strip().split("\n\n")
    assert head == f"# {in_markdown(out.name)}"
    assert made.startswith("A merge of `")
    assert len(terms[-1].splitlines()) == len(models)
    assert not [line for line in text.splitlines() if line.startswith(("# FORGED", "FORGED"))]
    require_plain(kinship("verify", out))


@pytest.mark.parametrize("length", [250, 255, 256, 300])
def test_long_names_of_outputs(length: int, kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    models, base = family_of(make_model, tmp_path, ["one", "two"])
    file, folder = tmp_path / ("o" * (length - 4) + ".csv"), tmp_path / ("m" * length)
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(yaml.safe_dump({"merge_method": "passthrough", "models": [{"model": models[0]}]}))
    for outcome in (kinship("matrix", *models, "--base", base, "--out", file), kinship("merge", recipe, folder)):
        require_plain(outcome, code=0 if length <= 255 else 1)
    if length <= 255:
        assert file.exists()
        assert folder.is_dir()


def test_index(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    index = tmp_path / "in[red]dex.sqlite"
    called = ("[/red]x", os.fsdecode(b"bad\xff"), "\x1b[31mRED", "line1\nFORGED")
    places = [linked(tmp_path, name, family.founders[0]) for name in called]
    require_plain(kinship("index", "add", index, *places))
    for command in (["query", index, places[0]], ["list", index], ["remove", index, places[1]]):
        require_plain(kinship("index", *command))
    listed = json.loads(kinship("index", "list", index, "--json").out)["models"]
    assert sorted(listed) == sorted([places[0], *places[2:]])


def test_scores_and_their_cache(kinship: Kinship, family: "Family", tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    content = yaml.safe_load((family.tasks / sorted(file.name for file in family.tasks.glob("*.yaml"))[0]).read_text())
    files = content["dataset_kwargs"]["data_files"]
    content["dataset_kwargs"]["data_files"] = {key: str(family.tasks.absolute() / file) for key, file in files.items()}
    name = "=t[/red]\x1b[31m<b>"
    (tasks / "hostile.yaml").write_text(yaml.safe_dump(content | {"task": name}))
    called = ("-[red]x\u202e", "a[/]b\nFORGED")
    places = [linked(tmp_path, one, founder) for one, founder in zip(called, family.founders, strict=False)]
    cache, out = tmp_path / "scores.sqlite", tmp_path / "s.csv"
    how = ["--tasks", name, "--task-path", tasks, "--limit", "4", "--cache", cache]
    outcome = kinship("score", *places, *how, "--out", out)
    require_plain(replace(outcome, err=outcome.err.replace("\r", "\n")))  # bars of libraries
    answer = json.loads(kinship("score", *places, *how, "--json").out)
    assert [one["model"] for one in answer["models"]] == places
    with open(out, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} >= {in_csv(name)}
    assert [row["model"] for row in rows[:1]] == [in_csv(places[0])]
    for command in ("list", "size", "verify"):
        require_plain(kinship("cache", command, "--cache", cache))
    outcome = kinship("score", places[1], *how)
    require_plain(replace(outcome, err=outcome.err.replace("\r", "\n")))


FOUNDERS = (
    "[/red]b",
    "$\\frac{$",
    "\x1b[31mANSI\nline2",
    "</script><script>x()</script>",
    "=cmd|' /C calc'!A0",
    "%{y}<b>",
)


def test_runs(kinship: Kinship, make_model: MakeModel, tmp_path: Path) -> None:
    """The ledger's commands, and the pages and pictures that a search ends with."""
    from kinship.pictures.family import family_figure
    from kinship.pictures.plots import heatmap
    from service.pages.charts import drawn
    from service.pages.contents import RunContents
    from service.pages.files import save_figure
    from service.pages.report import write_report

    base = make_model("base")
    founders = {name: make_model(f"f{place}", place, base) for place, name in enumerate(FOUNDERS, 1)}
    scene = Scene(tmp_path, base, founders)
    scene.run("ru[red]n", scene.config(stop={"generations": 1}), scene.evaluator(fails_for("1-2")))
    run = tmp_path / "ru[red]n"
    for command in (["show"], ["show", "--failures"], ["verify"], ["export"]):
        require_plain(kinship("runs", *command, run))
    require_plain(kinship("runs", "list", tmp_path))
    require_plain(kinship("runs", "compare", run, run))
    require_plain(kinship("tree", run, "--out", tmp_path / "t.html"))
    exported = json.loads(kinship("runs", "export", run).out)
    assert set(FOUNDERS) <= {person["id"] for person in exported["individuals"]}

    view = RunContents.open(run)
    save_figure(heatmap(view.kinship), tmp_path / "k.png")
    save_figure(family_figure(drawn(view.export)), tmp_path / "l.svg")
    ElementTree.fromstring((tmp_path / "l.svg").read_bytes())
    write_report(tmp_path / "r.html", {"<b>[/]": view, "$x$": view}, "<title> & co")
    page = tags((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert not page.handlers
    assert not page.found.keys() & {"b", "img"}
    rows = list(csv.reader(view.kinship.to_csv().splitlines()))
    assert not [row[0] for row in rows if row[0].startswith("=")]


def fails_for(unlucky: str) -> Any:
    from kinship.errors import EvaluationFailed

    def before(id: str, number: int) -> None:
        if id == unlucky:
            raise EvaluationFailed("out of [/memory]\x1b[31m\nFORGED <b>")

    return before


LETTERS = st.characters(exclude_characters="/\0", codec=None)


@pytest.mark.soak
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(LETTERS, min_size=1, max_size=40), min_size=2, max_size=6, unique=True))
def test_any_names(
    kinship: Kinship, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    base = make_model(f"base{len(list(tmp_path_factory.getbasetemp().iterdir()))}")
    folder = tmp_path_factory.mktemp("any")
    models = []
    for name in names:
        try:
            (folder / f"m{name}").symlink_to(base, target_is_directory=True)
        except (UnicodeEncodeError, OSError):
            continue  # no name of a file
        models.append(str(folder / f"m{name}"))
    outs = outputs(folder, "m", "csv", "json", "svg", "png", "html")
    if models:
        require_plain(kinship("matrix", *models, "--base", base, *outs))
        require_matrix_files(folder, models)
        require_plain(kinship("tree", *models, "--recorded", "--out", folder / "t.graphml", "--out", folder / "t.html"))
        nx.parse_graphml((folder / "t.graphml").read_text(encoding="utf-8"))
