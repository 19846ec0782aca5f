"""Notebooks run on the code as it is: their cells in order, in this process, where no kernel has to be installed.

`make notebooks` runs them under Jupyter.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from service.demo.family import Family

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_cells_run(notebook: Path, family: "Family", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("service.demo.family.make_family", lambda folder, settings: family)  # trained already
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        assert not cell["outputs"], f"cell {number} is stored with its outputs: clear them"
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), namespace)
