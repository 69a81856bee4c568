"""Members on different machines: they meet at an exchange, and nothing else reaches anybody. Real processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.kinds.aligned import ALIGN_PHASES
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger

from ..consortium import Consortium, isthmus, wait

Found = Callable[..., Consortium]


@pytest.fixture
def found() -> Iterator[Found]:
    """Make a consortium of a world's homes; its processes end with the test."""
    made: list[Consortium] = []

    def make(world: Any, starter: str, **options: Any) -> Consortium:
        made.append(Consortium(world.folder, world.job, starter=starter, **options))
        return made[-1].__enter__()

    yield make
    for one in made:
        one.__exit__()


def _models(world: Any) -> dict[str, bytes]:
    return {path.parts[-4]: path.read_bytes() for path in world.homes.glob("*/models/*/part.safetensors")}


@pytest.mark.timeout(200)
def test_a_vertical_job_over_the_exchange_is_that_of_one_machine_bit_for_bit(
    world: Any, found: Found, tmp_path: Path
) -> None:
    job = world.load_job()
    run = job.run_name(1)
    world.run_inside(run, phases=ALIGN_PHASES)  # each alignment has an order of its own: both begin with this one
    here = world.copy_to(tmp_path / "here")
    here.run_inside(run)
    consortium = found(world, "insurer")
    consortium.start_exchange()
    said = consortium.run()
    assert _models(world) == _models(here)
    assert set(_models(world)) == {"insurer", "lab"}
    assert "goes on with the alignment" in said["lab"]
    assert "auc, held-out rows" in said["insurer"] and "auc" not in said["lab"]
    for member in consortium.members:
        entries = Ledger(PartyHome(world.homes / member)).entries()
        assert {entry.topic.value for entry in entries} >= {"agree", "train"}
        assert not list((world.homes / member).glob("**/*.partial"))


@pytest.mark.timeout(200)
def test_hospitals_and_their_coordinator_meet_at_the_exchange(star: Any, found: Found, tmp_path: Path) -> None:
    here = star.copy_to(tmp_path / "here")
    here.run_inside(star.load_job().run_name(1))
    consortium = found(star, "hub")
    consortium.start_exchange()
    consortium.run("--json")
    assert _models(star) == _models(here)
    told = json.loads(consortium.said("hub").splitlines()[-1])
    assert any(event["event"] == "round" for event in told["events"])


@pytest.mark.timeout(120)
def test_members_wait_for_an_exchange_that_is_down_say_so_and_go_on(world: Any, found: Found) -> None:
    consortium = found(world, "insurer")
    joined = [consortium.join(member) for member in consortium.members]
    wait(lambda: all("cannot reach the exchange" in consortium.said(member) for member in consortium.members))
    consortium.start_exchange()
    for process in joined:
        assert process.wait(90) == 0, consortium.said("lab")
    assert "has reached the exchange" in consortium.said("lab")


@pytest.mark.timeout(120)
def test_without_an_exchange_they_give_up_at_the_deadline(world: Any, found: Found) -> None:
    consortium = found(world, "insurer")
    joined = {member: consortium.join(member, "--timeout", "2") for member in consortium.members}
    for member, process in joined.items():
        assert process.wait(60) == 4
        assert "error[exchange.down]" in consortium.said(member)
        assert "Traceback" not in consortium.said(member)
    assert not _models(world)


@pytest.mark.timeout(120)
def test_another_certificate_at_the_exchanges_address_is_not_believed(world: Any, found: Found, tmp_path: Path) -> None:
    elsewhere = world.copy_to(tmp_path / "other")
    consortium = found(world, "insurer")
    with Consortium(elsewhere.folder, world.job, starter="insurer", port=consortium.port) as other:
        other.start_exchange()
        process = consortium.join("lab", "--timeout", "3")
        assert process.wait(60) == 4
    assert "error[exchange.certificate]" in consortium.said("lab")


@pytest.mark.timeout(120)
def test_a_pause_ends_a_vault_at_once_and_keeps_the_next_from_beginning(world: Any, found: Found) -> None:
    consortium = found(world, "insurer")
    process = consortium.join("lab", "--timeout", "60")  # waits for an exchange that is not there
    wait(lambda: "cannot reach" in consortium.said("lab"))
    isthmus("pause", "lab", "--homes", world.homes)
    assert process.wait(10) == 3
    assert "error[policy.paused]" in consortium.said("lab")
    again = consortium.join("lab")
    assert again.wait(30) == 3
    isthmus("pause", "lab", "--off", "--homes", world.homes)
    consortium.start_exchange()
    consortium.run()
    assert set(_models(world)) == {"insurer", "lab"}


@pytest.mark.timeout(120)
def test_members_with_different_files_name_the_first_field_that_differs(world: Any, found: Found) -> None:
    consortium = found(world, "insurer")
    consortium.start_exchange()
    lab = consortium.join("lab")
    wait(lambda: "joins" in consortium.said("lab"))
    world.job["training"] |= {"epochs": 3}
    consortium.sign_job()  # another file, of the same name
    insurer = consortium.join("insurer")
    assert (lab.wait(60), insurer.wait(60)) == (2, 2)
    for member in consortium.members:
        assert "error[job.not_agreed]" in consortium.said(member)
        assert "'training' differs" in consortium.said(member)
        assert {entry.topic.value for entry in Ledger(PartyHome(world.homes / member)).entries()} == {"agree"}
