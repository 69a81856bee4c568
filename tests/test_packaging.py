"""The package as a user gets it: what the wheel holds, and that it runs away from the checkout.

Nothing here needs the network. Everything works on a copy of the files that git knows or would add, since building
leaves `build/` and `*.egg-info` behind and takes stale files from them. A new venv sees the engine's dependencies
through a .pth file that names this venv's site-packages; .pth files inside a folder added so are not read, hence the
editable install of the checkout is not active there.
"""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from shutil import copy2

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    name.removeprefix("isthmus.").replace(".", "/")
    for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Run a command that must succeed, without this session's PYTHON* and Prefect settings; return what it printed."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PREFECT_", "ISTHMUS_"))}
    done = subprocess.run(command, cwd=cwd, env=inherited | env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of_git() -> list[str]:
    """Paths that git tracks or would add, relative to the root, as they are in the working tree."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    return [name for name in listed if name and (ROOT / name).is_file()]


def copy_of_checkout(to: Path) -> Path:
    for name in files_of_git():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        copy2(ROOT / name, to / name)
    return to


def new_venv(at: Path) -> Path:
    """Make an empty venv, for `install` below; return its folder of commands."""
    run(sys.executable, "-m", "venv", "--without-pip", at, cwd=at.parent)
    return at / "bin"


def install(wheel: Path, venv_bin: Path) -> None:
    python = venv_bin / "python"
    # First the wheel, then the sight of our site-packages: pip must not see the isthmus that is installed there.
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=venv_bin)
    there = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=venv_bin).strip()
    Path(there, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("wheel")
    source = copy_of_checkout(here / "source")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", here, source, cwd=here)
    (built,) = here.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a venv in which the wheel is installed."""
    venv_bin = new_venv(tmp_path_factory.mktemp("venv") / "venv")
    install(wheel, venv_bin)
    return venv_bin


def test_the_wheel_holds_the_packages_files_and_nothing_else(wheel: Path) -> None:
    ours = {name for name in files_of_git() if Path(name).parent.as_posix() in PACKAGES}
    code = {name for name in ours if name.endswith((".py", "/py.typed"))}
    data = {name for name in files_of_git() if name.startswith("flows/data/")}
    assert ours == code, "a file beside the modules that no rule puts into the wheel"
    assert all(name.endswith((".parquet", "/README.md")) for name in data)

    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == {f"isthmus/{name}" for name in code | data}


def test_every_folder_of_code_is_listed_as_a_package() -> None:
    aside = {"tests", "tools", "typings", "examples", "docs"}
    folders = {Path(name).parent for name in files_of_git() if name.endswith(".py")}
    assert {f.as_posix() for f in folders if f.parts and f.parts[0] not in aside} == set(PACKAGES)


def test_the_installed_wheel_is_what_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    path = run(installed / "python", "-c", "import isthmus.parties; print(isthmus.parties.__file__)", cwd=tmp_path)
    assert Path(path.strip()).is_relative_to(installed.parent)


def test_the_installed_command_shows_its_help(installed: Path, tmp_path: Path) -> None:
    assert "demo" in run(installed / "isthmus", "--help", cwd=tmp_path)


@pytest.mark.timeout(300)
def test_the_installed_command_runs_a_small_job(installed: Path, tmp_path: Path) -> None:
    # The smallest job that goes through every layer; PREFECT_HOME keeps the user's own Prefect out of it.
    job = ["demo", "--patients", "400", "--epochs", "2", "--no-baselines"]
    run(installed / "isthmus", *job, cwd=tmp_path, PREFECT_HOME=str(tmp_path / "prefect"))
    assert list((tmp_path / "runs").rglob("summary.json"))


def test_an_editable_install_shows_modules_added_later(tmp_path: Path) -> None:
    source = copy_of_checkout(tmp_path / "source")
    code = "from setuptools import build_meta; print(build_meta.build_editable('.'))"
    name = run(sys.executable, "-c", code, cwd=source).splitlines()[-1]
    venv_bin = new_venv(tmp_path / "venv")
    install(source / name, venv_bin)

    for folder in PACKAGES:
        (source / folder / "later.py").write_text("HERE = __file__")
        module = f"isthmus.{folder}.later".replace("/", ".")
        here = run(venv_bin / "python", "-c", f"import {module} as later; print(later.HERE)", cwd=tmp_path).strip()
        assert Path(here) == source / folder / "later.py"
