"""Merge gain against kinship, and kinship among the best, against SciPy and by hand."""

from html import escape
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from search.ledger.ledger import Ledger
from service.answers.export import export_of
from service.answers.gains import Correlation, gains_of, interval, tops_of
from service.pages.contents import RunContents
from service.pages.report import write_report
from tests.conftest import MakeModel
from tests.search.runs import Scene, make_scene


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)


@pytest.mark.parametrize(("n", "slope"), [(4, 0.5), (15, -0.3), (200, 0.0)])
def test_correlation_is_scipys(n: int, slope: float) -> None:
    random = np.random.default_rng(n)
    x = random.normal(size=n)
    y = slope * x + random.normal(size=n)
    found, expected = Correlation.of(zip(x, y, strict=True)), stats.pearsonr(x, y)
    line = stats.linregress(x, y)
    ends = expected.confidence_interval(0.95)
    assert found.n == n
    np.testing.assert_allclose(
        [found.r, found.p, found.low, found.high, found.slope, found.intercept],
        [expected.statistic, expected.pvalue, ends.low, ends.high, line.slope, line.intercept],
        rtol=1e-9,
    )


@pytest.mark.parametrize("pairs", [[], [(0, 1), (1, 2)], [(1, 0), (1, 1), (1, 2)], [(0, 1), (1, 1), (2, 1)]])
def test_where_there_is_nothing_to_say_nothing_is_said(pairs: list[tuple[float, float]]) -> None:
    found = Correlation.of(pairs)
    assert (found.n, found.r, found.low, found.p) == (len(pairs), None, None, None)
    assert found.words.startswith(f"no correlation can be told of {len(pairs)} pairs")


def test_three_pairs_have_no_interval_and_a_line_has_a_narrow_one() -> None:
    assert "no interval" in Correlation.of([(0, 0), (1, 2), (2, 1)]).words
    assert interval(1.0, 5) == (1.0, 1.0)


def test_of_a_run(scene: Scene) -> None:
    scene.run("run")
    folder = scene.folder / "run"
    export, view = export_of(str(folder)), RunContents.open(folder)
    with Ledger.of_run(folder) as ledger:
        records = ledger.records()
    assert export.gain == Correlation.of(gains_of(records))
    people = {one.id: one for one in export.individuals}
    for top in view.top:
        born = (one for one in people.values() if one.generation <= top.generation)
        elders = [one for one in born if one.id != "base" and one.twin is None]
        assert top.ids == [one.id for one in sorted(elders, key=lambda one: one.place)[: len(top.ids)]]
        pairs = [view.kinship[pair] for pair in combinations(top.ids, 2)]
        assert top.kinship == pytest.approx(sum(pairs) / len(pairs))
    assert [top.generation for top in view.top] == list(tops_of(records, 3))
    write_report(folder / "again.html", {"run": view}, "title")
    page = (folder / "again.html").read_text()
    assert escape(export.gain.words) in page
    assert f"<td>{view.top[-1].kinship:.3f}</td><td>{', '.join(view.top[-1].ids)}</td>" in page
    rows = page.partition("Merges by generation")[2].partition("</table>")[0]
    born = [one for one in export.individuals if one.generation]
    assert [rows.index(f"<td>{one.id}</td>") for one in born] == sorted(
        rows.index(f"<td>{one.id}</td>") for one in born
    )
