"""Claims: the notebooks run from the first cell to the last on a tiny budget (the third, which trains every arm of the
comparison, with the slow tests), and are stored executed, with pictures, without paths of the machine they ran on."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * path.stem.startswith("03")) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_on_a_tiny_budget(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_NOTEBOOK_BUDGET", "0.004")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as all tests: threads that wait for each other are slowest when busy
    monkeypatch.setenv("JEPA_NOTEBOOK_OUT", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_executed_and_clean(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", {}))
    assert not re.search(r"site-packages|/home/|/root/|/tmp/", path.read_text()), "a path of the machine"
    assert os.path.getsize(path) < 2_000_000
