"""docs/deploy.md and examples/deploy: what can be checked of them without the minutes of `make demo-postgres`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from isthmus.flows.jobs import load_job
from isthmus.parties.catalogue import CATALOGUE
from isthmus.parties.home import PartyHome

from .page import PAGE, ROOT, Block, blocks

TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples" / "deploy"
UNITS = sorted(EXAMPLES.glob("*.service"))
WRITTEN = re.compile(r"<<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page() -> list[Block]:
    return blocks(TEXT)


def test_every_block_says_where_it_is_typed_and_nothing_else_is_to_be_typed(page: list[Block]) -> None:
    assert len(page) == TEXT.count("```sh\n") == TEXT.count("```") // 2
    assert {machine for block in page for machine in block.machines} == {"server", "hub", "insurer", "lab", "clinic"}


def test_only_what_needs_the_internet_is_not_rehearsed(page: list[Block]) -> None:
    aside = [block for block in page if not block.rehearsed]
    assert all(re.search(r"git clone|apt-get install|git pull", block.text) for block in aside)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_every_block_is_a_shell_script(page: list[Block]) -> None:
    for block in page:
        done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + block.text


def test_the_page_s_job_is_one_that_the_page_s_policies_let_through(page: list[Block], tmp_path: Path) -> None:
    (block,) = (block for block in page if "kind: vertical\n" in block.text)
    (written,) = WRITTEN.findall(block.text)
    (tmp_path / "job.yaml").write_text(written)
    job = load_job(tmp_path / "job.yaml")
    for party in job.members:
        (content,) = (found for one in page for found in WRITTEN.findall(one.text) if f"name: {party}\n" in found[:20])
        home = tmp_path / party
        home.mkdir()
        (home / "party.yaml").write_text(content)
        policy = PartyHome(home).config.policy
        assert policy.rate("insurer", job.kind) is not None
        policy.check(job.terms(party))


def test_the_units_and_files_that_the_page_names_are_there_and_no_others() -> None:
    named = set(re.findall(r"examples/deploy/([\w@.-]+?\.(?:service|conf|yaml))", TEXT))
    assert named == {path.name for path in (*UNITS, EXAMPLES / "nginx.conf", EXAMPLES / "compose.yaml")}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_s_users_and_paths_are_those_of_the_page(unit: Path) -> None:
    for user in re.findall(r"^User=(.+)$", unit.read_text(), re.MULTILINE):
        assert re.search(rf"^useradd .* {user}$", TEXT, re.MULTILINE)
    for file in re.findall(r"^EnvironmentFile=(.+)$", unit.read_text(), re.MULTILINE):
        assert f"cat > {file}" in TEXT


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_takes_every_unit(unit: Path, tmp_path: Path) -> None:
    here = tmp_path / unit.name.replace("@", "@lab")
    # The command is not installed here.
    here.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, timeout=60)
    about = [line for line in done.stderr.splitlines() if unit.name.split("@")[0].removesuffix(".service") in line]
    assert about == []


def test_the_compose_file_asks_for_every_variable_of_its_example_and_no_other() -> None:
    text = (EXAMPLES / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?\}", text))
    assert asked == set(re.findall(r"^(\w+)=", (EXAMPLES / "compose.env").read_text(), re.MULTILINE))
    assert "$" not in re.sub(r"\$\{\w+:\?\}", "", text)
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"postgres", "prefect", "caddy", "exchange"}
    for name, service in services.items():
        assert "build" in service or "image" in service, name
        for other in service.get("depends_on", ()):
            assert other in services
    assert not any(
        "4200" in str(port) or "5432" in str(port) for one in services.values() for port in one.get("ports", ())
    )


def test_the_codes_that_the_page_names_are_those_of_the_catalogue() -> None:
    table = TEXT[TEXT.index("## 13.") :]
    codes = set(re.findall(r"`([a-z]+\.[a-z_]+)`", table))
    assert len(codes) > 8
    assert codes <= set(CATALOGUE)
