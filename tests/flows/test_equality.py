"""The first test of the engine: a whole job gives, bit for bit, the model that one process trains. Once over processes.

Each party's rows are read again from its own home, in the order of the alignment that it kept, and the composed network
is trained on all of them at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from isthmus.flows.kinds.vertical.learning import SCORES_FILE, plan_of
from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.home import PartyHome
from isthmus.parties.state import State
from isthmus.parties.store import Store
from isthmus.vertical import CentralModel, Parts, split_rows, train_central

RUN = "test-job-1"


@pytest.fixture(autouse=True)
def one_thread():
    """As in a vault: one thread adds up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained_centrally(world: Any) -> tuple[CentralModel, Parts, np.ndarray[Any, Any]]:
    job, tables, digests = world.load_job(), {}, set()
    for party in job.parties:
        home = PartyHome(world.homes / party.name)
        alignment = State(home).load_alignment(RUN)
        digests.add(alignment.digest)
        row_ids, store = np.array(alignment.row_ids, dtype=object), Store(home, party.dataset)
        names = [name for name in home.config.policy.check(job.terms(party.name)).columns if name != party.label]
        tables[party.name] = store.columns(names, row_ids)
        if party.label is not None:
            label = store.label(party.label, row_ids)
    (digest,) = digests  # all parties hold the same alignment
    plan = plan_of(job)
    parts = split_rows(len(label), plan.validation_share, plan.test_share, plan.seed, digest)
    seeds = {party.name: world.party(party.name)["seed"] for party in job.parties}
    model = train_central(tables, label, plan, active=job.active.name, private_seeds=seeds, parts=parts)
    return model, parts, label


def check_that_both_are_equal(world: Any) -> int:
    """Returns after how many epochs training ended."""
    central, parts, label = trained_centrally(world)
    epochs, batches = len(central.stopping.history), -(-len(parts.train) // plan_of(world.load_job()).batch_size)
    assert epochs * batches >= 200, "too few steps of Adam to mean much"
    weights = 0
    for party in world.job["parties"]:
        path = world.homes / party["name"] / "models" / RUN / "part.safetensors"
        found, _ = read_tensors(path)
        wanted = central.part(party["name"])
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name].dtype == value.dtype == np.float32, (party["name"], name)
            assert np.abs(found[name] - value).max() == 0, (party["name"], name)
            assert found[name].tobytes() == value.tobytes(), (party["name"], name)
            weights += value.size
    assert weights > 100
    kept, _ = read_tensors(PartyHome(world.homes / "insurer").run_folder(RUN) / SCORES_FILE)
    assert kept["rows"].tolist() == parts.test.tolist()
    assert kept["label"].tobytes() == label[parts.test].tobytes()
    assert kept["score"].tobytes() == central.scores(parts.test).tobytes()
    return epochs


def long_training(world: Any, **training: Any) -> None:
    world.job["training"] |= {"epochs": 30, "patience": 30, "batch_size": 16, **training}


def test_a_job_of_two_parties_over_processes_is_central_training_bit_for_bit(world: Any):
    long_training(world)
    assert world.job["model"]["dropout"] == 0.2
    world.run(RUN)
    assert check_that_both_are_equal(world) == 30


def test_a_job_of_three_parties_that_stopped_early_is_central_training_bit_for_bit(world_of_three: Any):
    long_training(world_of_three, epochs=50, patience=11, batch_size=8, weight_decay=0.01)
    # Different seeds at different parties, and no columns at the active one.
    for seed, party in enumerate(("insurer", "lab", "clinic"), 21):
        world_of_three.edit_party(party, lambda content, seed=seed: content.update(seed=seed))
    world_of_three.job["parties"][0]["columns"] = []
    world_of_three.run_inside(RUN)
    assert check_that_both_are_equal(world_of_three) < 50
