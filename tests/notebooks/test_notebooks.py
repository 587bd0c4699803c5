"""The notebooks run from beginning to end on a tiny run, define nothing, and store nothing."""

import ast
import importlib.util
import json
from pathlib import Path

import filelock
import pytest

from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.tiny_run import RUN_VARIABLE, find_or_make_run

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDED = ("ipykernel", "ipywidgets", "nbclient", "nbformat", "pandas")
NEEDED_BY = {"05_federated": ("flwr", "opacus", "dp_accounting")}
"""Libraries of an extra that a notebook runs with."""
needs_jupyter = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason=f"needs {', '.join(NEEDED)}: pip install -e .[notebooks]",
)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> RunLayout:
    """One tiny run for all notebooks, also where several processes run the tests."""
    own = tmp_path_factory.getbasetemp()
    runs = (own if worker_id == "master" else own.parent) / "notebook_runs"
    runs.mkdir(exist_ok=True)
    with filelock.FileLock(runs / "tiny.lock"), pytest.MonkeyPatch.context() as patch:
        patch.delenv(RUN_VARIABLE, raising=False)
        return find_or_make_run(runs)


def code_cells(path: Path) -> list[dict[str, object]]:
    """The cells of a notebook that hold code."""
    return [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]


def test_there_are_five_notebooks() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_define_nothing_and_store_nothing(path: Path) -> None:
    """What is worth a definition belongs into the library, where it is tested."""
    cells = code_cells(path)
    assert len(cells) > 3
    for cell in cells:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        source = "".join(cell["source"])  # pyright: ignore[reportArgumentType, reportCallIssue]
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
            # Paths that begin at the root hold on one machine alone.
            assert not (isinstance(node, ast.Constant) and str(node.value).startswith(("/", "~")))


@needs_jupyter
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tiny_run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell runs, and the notebook shows plots."""
    for library in NEEDED_BY.get(path.stem, ()):
        pytest.importorskip(library)
    import nbclient
    import nbformat

    monkeypatch.setenv(RUN_VARIABLE, str(tiny_run.folder.resolve()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert "application/vnd.plotly.v1+json" in shown
    assert "text/html" in shown
    assert not [output for output in outputs if output.output_type == "error"]
