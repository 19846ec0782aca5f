"""Every page as HTML: that it is there, escapes what it is given, and keeps what was typed."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from kinship.safe_yaml import load_yaml_documents
from merging.recipe.documents import united
from merging.recipe.schema import load_recipe, parse_recipe
from search.config import RunConfig
from search.ledger.location import LEDGER_NAME, LedgerLocation
from service.answers.export import RunExport, legend
from service.answers.jobs import Job, JobState
from service.answers.runs import RunSummary
from service.answers.served import RunState, ServedRun
from service.http.looking import RunView, served
from service.http.pages.run import left
from service.http.workspace import RunPlace
from tests.service.http.pages.conftest import HOSTILE

RUN = "/runs/run"
PAGES = (
    "/", "/home/live", RUN, f"{RUN}/verdict", f"{RUN}/failures", f"{RUN}/files", f"{RUN}/individuals/1-1",
    "/new", "/new?from=run",
    "/compare", f"/compare?run=run&run={quote(f'{HOSTILE} run')}", "/kinship", "/kinship?base=base&model=one&model=two",
    f"/kinship?base=base&model=one&model={quote(HOSTILE)}", "/merge", "/merge?run=run&individual=1-1",
    "/trees", "/trees?run=run", "/trees?model=one&model=two", "/jobs", "/jobs/live",
    "/models", "/scores", "/scores?model=one&model=two", "/methods", "/new/methods", "/new/methods?base=base&model=one",
    "/models?reference=one", f"/models?reference={quote(HOSTILE)}",
)  # fmt: skip


class _Read(HTMLParser):
    """What a browser would run or fetch of a page, and every id and label of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inline, self.handlers, self.foreign, self.ids = [], [], [], list[str]()
        self.inputs, self.labelled = list[dict[str, str | None]](), set[str | None]()
        self._script = self._label = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.handlers += [name for name in given if name.startswith("on")]
        self.foreign += [v for k, v in attrs if k in {"src", "href", "action"} and v and re.match(r"(?:\w+:)?//", v)]
        self.ids += [given["id"] or ""] if "id" in given else []
        self._script = tag == "script" and "src" not in given and given.get("type") != "application/json"
        self._label |= tag == "label"
        if tag == "label":
            self.labelled.add(given.get("for"))
        if tag in {"input", "select", "textarea"} and given.get("type") != "hidden" and not self._label:
            self.inputs.append(given)

    def handle_endtag(self, tag: str) -> None:
        self._label &= tag != "label"
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)


def near(value: float | None) -> object:
    """Seven digits are sent."""
    return None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)


def test_pages_are_there_and_run_nothing_but_their_own_files(pages: TestClient) -> None:
    for address in PAGES:
        reply = pages.get(address)
        assert reply.status_code == 200, (address, reply.text)
        assert reply.headers["content-type"].startswith("text/html")
        found = _Read()
        found.feed(reply.text)
        assert [found.inline, found.handlers, found.foreign] == [[], [], []], address
        assert len(found.ids) == len(set(found.ids)), address
        unlabelled = [one for one in found.inputs if one.get("id") not in found.labelled and "aria-label" not in one]
        assert not unlabelled, address
        assert HOSTILE not in reply.text.replace(HOSTILE.replace("<", "\\u003c"), ""), address


def test_scripts_and_styles_are_served_and_what_has_a_digest_is_kept(pages: TestClient) -> None:
    links = re.findall(r'(?:src|href)="(/static/[^"]+)"', pages.get(RUN).text)
    assert len(links) > 8
    for link in links:
        reply = pages.get(link)
        assert reply.status_code == 200, link
        assert ("immutable" in reply.headers["cache-control"]) == ("/vendor/" in link)
    assert pages.get("/static/../app.py").status_code == 404


def test_numbers_of_a_run_and_of_one_in_it_name_their_metric_and_direction(pages: TestClient) -> None:
    export = RunExport.model_validate(pages.get("/api/v1/runs/run/export").json())
    said = legend(export.metric, {name: task.metric for name, task in export.tasks.items()})
    assert f"Kinship is {export.metric} of the parents" in said
    for address in (RUN, f"{RUN}/individuals/1-1"):
        assert said in unescape(pages.get(address).text), address


def test_a_page_says_where_the_same_is_json(pages: TestClient) -> None:
    for address in ("/", RUN, f"{RUN}/individuals/1-1", f"/compare?run=run&run={quote(f'{HOSTILE} run')}",
                    "/trees?run=run", "/trees?model=one&base=base", "/jobs", "/models", "/methods",
                    f"/kinship?base=base&model=one&model={quote(HOSTILE)}",
                    f"/models?reference={quote(HOSTILE)}"):  # fmt: skip
        found = re.search(r'<link rel="alternate" type="application/json" href="([^"]+)"', pages.get(address).text)
        assert found, address
        reply = pages.get(unescape(found[1]))
        assert (reply.status_code, type(reply.json())) == (200, dict), address


def test_a_page_answers_as_json_to_whoever_wants_that(pages: TestClient) -> None:
    for address, schema in {
        "/": "kinship.served-runs", RUN: "kinship.served-run", f"{RUN}/individuals/1-1": "kinship.individual",
        "/kinship?base=base&model=one&model=two": "kinship.matrix", "/kinship?base=base&more=one+two": "kinship.matrix",
        "/trees?model=one&base=base": "kinship.family", "/trees?run=run": "kinship.lineage-graph",
        "/jobs": "kinship.jobs",
        "/models?reference=one": "kinship.model", "/models": "kinship.models", "/scores": "kinship.models",
        "/methods": "kinship.served-comparisons",
    }.items():  # fmt: skip
        reply = pages.get(address, headers={"Accept": "application/json"})
        assert reply.status_code == 200, (address, reply.text)
        told = reply.json()
        assert told.get("schema", "kinship.individual/").startswith(f"{schema}/"), address
    matrix, typed = (pages.get(f"/kinship?base=base&{more}", headers={"Accept": "application/json"}).json()
                     for more in ("model=one&model=two&metric=cosine", "more=one%20two&metric=cosine"))  # fmt: skip
    assert matrix == typed
    assert (matrix["ids"], matrix["metric"]) == (["one", "two"], "cosine")
    assert pages.get("/api/v1/kinship/matrices?base=base&model=../secret").status_code == 403
    for nobody in ("/api/v1/kinship/matrices?base=base", "/api/v1/trees", "/api/v1/trees?base=base"):
        assert pages.get(nobody).status_code == 422


def test_scores_of_ticked_models_are_a_job_and_a_mistake_keeps_what_was_typed(pages: TestClient) -> None:
    assert re.findall(r'name="model" value="([^"]+)" checked', pages.get("/scores?model=two").text) == ["two"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    typed = "model=one&models=two&evaluate.limit=few&evaluate.tasks=arc_easy%0Ahellaswag"
    wrong = pages.post("/scores", content=typed, headers=form)
    assert wrong.status_code == 422
    assert re.search(r'name="model" value="one" checked', wrong.text)
    assert 'value="few"' in wrong.text
    assert set(pages.post("/scores/check", content=typed, headers=form).json()["errors"]) == {"evaluate.limit"}
    assert pages.post("/scores", content="evaluate.tasks=arc_easy", headers=form).status_code == 422
    done = pages.post("/scores", content=typed.replace("few", "8"), headers=form, follow_redirects=False)
    assert done.status_code == 303, done.text
    (job,) = pages.get("/api/v1/jobs").json()["jobs"]
    assert (job["kind"], job["arguments"][-2:]) == ("score", ["one", "two"])
    assert pages.get(f"/scores?job={job['id']}").status_code == 409


def test_descent_is_recovered_of_ticked_models_by_a_job(pages: TestClient) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    done = pages.post("/trees", content="model=one&model=two", headers=form, follow_redirects=False)
    assert done.status_code == 303
    assert pages.get("/api/v1/jobs").json()["jobs"][0]["arguments"][1:3] == ["--recorded", "--recover"]


def test_no_model_is_made_of_founders_that_may_not_be_named(pages: TestClient) -> None:
    made = pages.post("/api/v1/runs/run/individuals/1-1/model")
    assert (made.status_code, made.json()["code"]) == (403, "refused")
    assert pages.post("/api/v1/runs/run/individuals/base/model").status_code in {403, 404}
    assert pages.post("/api/v1/runs/run/individuals/nobody/model").status_code == 404


def test_a_recipe_leads_to_the_form_of_a_run_from_its_models(pages: TestClient) -> None:
    models = ", ".join(f"{{model: {name}, parameters: {{weight: 1}}}}" for name in ("one", "two"))
    recipe = f"{{merge_method: task_arithmetic, base_model: base, models: [{models}]}}"
    reply = pages.post("/merge/search", data={"recipe": recipe})
    assert reply.status_code == 200
    assert re.search(r'id="f-base" name="base" value="base"', reply.text)
    assert re.findall(r'name="founder" value="([^"]+)" checked', reply.text) == ["one", "two"]
    assert pages.post("/merge/search", data={"recipe": "[1"}).status_code == 422


def test_a_failure_is_a_page_or_a_notice_or_json_in_the_same_words(pages: TestClient) -> None:
    whole, part = pages.get("/runs/nobody"), pages.get("/runs/nobody", headers={"HX-Request": "true"})
    plain = pages.get("/runs/nobody", headers={"Accept": "application/json"})
    api = pages.get("/api/v1/runs/nobody")
    assert {whole.status_code, part.status_code, plain.status_code, api.status_code} == {404}
    assert plain.json() == api.json()
    assert "<html" in whole.text
    assert "<html" not in part.text
    for reply in (whole, part):
        assert "There is no run" in reply.text
        assert "&#39;nobody&#39;" in reply.text


def test_increments_begin_where_a_page_asks_and_agree_with_the_export(pages: TestClient) -> None:
    everything, export = pages.get(f"{RUN}/live").json(), pages.get("/api/v1/runs/run/export").json()
    rows = [dict(zip(everything["columns"], row, strict=True)) for row in everything["rows"]]
    assert [row["id"] for row in rows] == [person["id"] for person in export["individuals"]]
    for row, person in zip(rows, export["individuals"], strict=True):
        score = person["scores"].get("search", {})
        assert row["value"] == near(score.get("value"))
        assert row["gain"] == near(person["merge_gain"])
        assert (row["error"], row["parents"]) == (person["error"], person["parents"])
    assert everything["settled"] == len(rows)
    later = pages.get(f"{RUN}/live?first=3").json()
    assert later["rows"] == everything["rows"][3:]
    assert later["gain"] == everything["gain"]
    assert pages.get(f"{RUN}/live?first=1000000").json()["rows"] == []


def test_kinship_among_the_best_is_the_mean_over_their_pairs(pages: TestClient) -> None:
    found = pages.get(f"{RUN}/related").json()
    place = {id: index for index, id in enumerate(found["ids"])}
    assert found["top"]
    for _, mean, who in found["top"]:
        pairs = [(one, other) for index, one in enumerate(who) for other in who[:index]]
        values = [found["values"][place[one]][place[other]] for one, other in pairs]
        assert mean == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_errors_are_told_at_their_fields(pages: TestClient) -> None:
    typed = {
        "base": "base", "founders": "one: [", "strategy.k": "many", "strategy.name": "topk", "stop.hours": "-1",
        "evaluate.tasks": "{a: 1}", "merge.method": "lineal",
    }  # fmt: skip
    errors = pages.post("/new/check", data=typed).json()["errors"]
    assert set(errors) >= {"founders", "strategy.k", "stop.hours", "evaluate.tasks", "merge.method"}
    assert "YAML" in errors["founders"]
    assert "Did you mean 'linear'" in errors["merge.method"] or "linear" in errors["merge.method"]
    section = pages.post("/new/check", data={"strategy.name": "pairs", "strategy.batch": "7"}).json()["errors"]
    assert "batch" in section["strategy"]


def test_a_form_that_cannot_be_used_comes_back_with_all_that_was_typed(pages: TestClient) -> None:
    typed = [
        ("name", "again"),
        ("base", HOSTILE),
        ("founder", "one"),
        ("strategy.k", "x < y"),
        ("evaluate.tasks", "- a\n- b"),
    ]
    body = "&".join(f"{quote(name)}={quote(value)}" for name, value in typed)
    reply = pages.post("/new", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 422
    assert 'value="x &lt; y"' in reply.text
    assert "- a\n- b</textarea>" in reply.text
    assert 'value="again"' in reply.text
    assert re.search(r'name="founder" value="one" checked', reply.text)
    assert HOSTILE not in reply.text


def test_a_run_like_an_earlier_one_has_its_settings(pages: TestClient) -> None:
    config = pages.get("/api/v1/runs/run/export").json()["config"]
    page = pages.get("/new?from=run").text
    expected = RunConfig.model_validate(config)
    assert f'value="{expected.base}"' in page
    for name, reference in expected.founders.items():
        assert f"{name}: {reference}" in page


def test_a_started_run_waits_among_the_jobs_and_has_a_page(pages: TestClient) -> None:
    body = "base=base&founder=one&founder=two&evaluate.perplexity=-%20file:%20base/config.json&stop.evaluations=2"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = pages.post("/new", content=body, headers=form, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/runs/run-1"), reply.text
    page = pages.get("/runs/run-1")
    assert page.status_code == 200
    assert "queued" in page.text
    (job,) = pages.get("/api/v1/jobs").json()["jobs"]
    assert job["run"] == "run-1"
    assert pages.get(f"/jobs/{job['id']}").status_code == 200
    assert "run-1" in pages.get("/").text


def test_a_merge_becomes_a_job_and_a_mistake_keeps_the_recipe(pages: TestClient) -> None:
    form = {"recipe": "merge_method: linear\nmodels: [", "name": "both"}
    wrong = pages.post("/merge", data=form)
    assert wrong.status_code == 422
    assert "merge_method: linear\nmodels: [</textarea>" in wrong.text
    outside = pages.post(
        "/merge", data={"recipe": "{merge_method: linear, models: [{model: ../x, parameters: {weight: 1}}]}"}
    )
    assert outside.status_code == 422
    assert "leads out of the workspace" in outside.text
    recipe = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 1}} for name in ("one", "two")],
    }
    done = pages.post("/merge", data={"recipe": json.dumps(recipe), "name": "both"}, follow_redirects=False)
    assert done.status_code == 303
    assert "Merge both" in pages.get(done.headers["location"]).text


def test_a_recipe_of_several_merges_is_merged_as_it_stands_on_the_page(pages: TestClient, workspace: Path) -> None:
    export = pages.get("/api/v1/runs/run/export").json()
    nested = next(person["id"] for person in export["individuals"] if person["generation"] == 2 and person["identity"])
    shown = re.search(r"<textarea[^>]*>(.*?)</textarea>", pages.get(f"/merge?run=run&individual={nested}").text, re.S)
    assert shown
    recipe = unescape(shown[1])
    assert "\n---\n" in recipe
    assert unescape(pages.get(f"{RUN}/individuals/{nested}").text).count(recipe.strip()) == 1
    config = export["config"]
    for number, path in enumerate([config["base"], *config["founders"].values()]):  # what the run was made of is gone
        recipe = recipe.replace(path, ("base", "one", "two", "one")[number])
    assert pages.post("/merge", data={"recipe": recipe.replace("---", "--- [", 1), "name": "x"}).status_code == 422
    twice = recipe.replace("name:", "called:")
    assert pages.post("/merge", data={"recipe": twice, "name": "x"}).status_code == 422
    done = pages.post("/merge", data={"recipe": recipe, "name": nested}, follow_redirects=False)
    assert done.status_code == 303, done.text
    (kept,) = (workspace / "jobs").glob("*/recipe.yml")
    assert load_recipe(kept) == parse_recipe(united(load_yaml_documents(recipe), "the recipe"))


def test_models_in_a_tree_are_named_from_the_workspace(pages: TestClient, workspace: Path) -> None:
    text = pages.get("/trees?base=base&model=one&model=two").text
    assert str(workspace) not in text
    found = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert sorted(node["id"] for node in found["nodes"]) == ["base", "one", "two"]


@pytest.mark.parametrize("model", ["../secret", "/etc", "base/../../secret"])
def test_no_model_outside_the_workspace_is_measured(pages: TestClient, model: str) -> None:
    for address in (f"/kinship?base=base&model={model}", f"/trees?model={model}"):
        reply = pages.get(address)
        assert reply.status_code == 422
        assert "leads out of the workspace" in reply.text


@pytest.mark.parametrize("form", ["", "model=one", "model=one&base=base&metric=nonsense", "base=base"])
def test_what_a_form_lacks_is_told(pages: TestClient, form: str) -> None:
    reply = pages.post("/kinship", content=form, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 422


def test_tasks_are_found_by_part_of_their_name(pages: TestClient) -> None:
    found = pages.get("/new/tasks", params={"find": "arc easy"}).text
    assert 'data-task="arc_easy"' in found
    assert "No task" in pages.get("/new/tasks", params={"find": "no such task at all"}).text


@pytest.mark.parametrize(
    ("state", "stopped", "diary", "told"),
    [
        ("running", None, ["started", "scored"], "42 s"),
        ("running", None, ["started", "scored", "ended", "scored"], "scoring held-out documents"),
        ("running", None, ["started", "ended", "extended", "started"], "42 s"),
        ("running", "budget", ["started", "ended", "scored"], "writing results"),
        ("finished", "budget", ["started", "ended", "scored"], ""),
    ],
)
def test_after_the_search_the_time_left_is_what_is_still_done(
    state: RunState, stopped: str | None, diary: list[str], told: str
) -> None:
    summary = RunSummary.model_construct(stopped=stopped)
    run = ServedRun.model_construct(state=state, summary=summary, seconds_left=42.0)
    assert left(run, RunView(diary=diary)) == told


@pytest.mark.parametrize(("job", "told"), [("paused", "paused"), ("cancelled", "new"), ("queued", "queued")])
def test_a_run_that_was_paused_before_it_had_begun_is_paused(tmp_path: Path, job: JobState, told: RunState) -> None:
    place = RunPlace("run", LedgerLocation.of_file(tmp_path / LEDGER_NAME), tmp_path)
    assert served(place, RunView(), Job.model_construct(id=1, state=job, error=None)).state == told
