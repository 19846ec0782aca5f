"""The report of a comparison of merge methods: five figures and their tables in one self-contained file."""

from pathlib import Path

import plotly.graph_objects as go

from kinship.output import output_file
from kinship.outside import write_csv
from service.answers.method_comparison import FILE, MethodComparison, table_rows
from service.pages.comparison_figures import NAMES, figures
from service.pages.environment import page_environment
from service.pages.report import CHART_CONFIG, plotly_script

REPORT, TABLE = "report.html", "comparison.csv"


def write_comparison(folder: Path, answer: MethodComparison) -> Path:
    """Write the answer, its table and its report into ``folder``, over those of before; returns the report."""
    with output_file(folder / FILE, force=True) as partial:
        partial.write_text(answer.to_json() + "\n", encoding="utf-8")
    with output_file(folder / TABLE, force=True) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, table_rows(answer))
    with output_file(folder / REPORT, force=True) as partial:
        partial.write_text(comparison_page(answer), encoding="utf-8")
    return folder / REPORT


def comparison_page(answer: MethodComparison) -> str:
    """One page that needs nothing else; about 1.5 MB, of which Plotly is nearly all."""
    charts = {name: _html(figure) for name, figure in figures(answer).items()}
    template = page_environment().get_template("method_comparison.html")
    return template.render(answer=answer, groups=NAMES, charts=charts, plotly_js=plotly_script())


def _html(figure: go.Figure) -> str:
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=CHART_CONFIG))
