"""`pip install --editable .` shows the folders of the checkout as isthmus.<folder>, from anywhere.

The layers themselves, and who may import what, are held by `make check` (import-linter's contracts in pyproject.toml).
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ["parties", "psi", "horizontal", "vertical", "transfer", "flows"]


def python(code: str, cwd: Path, *options: str) -> str:
    # -P keeps the working directory off the path, so that only the installation can answer.
    done = subprocess.run([sys.executable, "-P", *options, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_package_is_imported_from_the_checkout_wherever_one_stands(folder: str, tmp_path: Path) -> None:
    code = f"import isthmus.{folder} as package; print(package.__file__)"
    assert Path(python(code, tmp_path)) == ROOT / folder / "__init__.py"


def test_a_users_own_folders_do_not_hide_ours(tmp_path: Path) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise RuntimeError('not ours')")
    code = "import sys; sys.path.insert(0, ''); import isthmus.parties, isthmus.psi"
    python(code, tmp_path)


def test_importing_the_lowest_layer_warns_of_nothing(tmp_path: Path) -> None:
    python("import isthmus.parties", tmp_path, "-W", "error")


def test_importing_flows_loads_neither_prefect_nor_torch(tmp_path: Path) -> None:
    # The command line answers --help at once, and a vault stays free of Prefect, because flows/__init__ is lazy.
    code = "import sys, isthmus.flows; print(sorted({'prefect', 'torch'} & set(sys.modules)))"
    assert python(code, tmp_path) == "[]"


def test_jobs_are_read_and_rows_counted_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from isthmus.flows.jobs import load_job; "
        "[load_job(path) for path in Path(sys.argv[1]).glob('*.yaml')]; "
        "import isthmus.flows.kinds.statistics.phases, isthmus.flows.kinds.horizontal.phases; "
        "print(sorted({'prefect', 'torch'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, str(ROOT / "examples")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
