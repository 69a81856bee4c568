"""The demo's parties: a lab, a clinic and an insurer with real patients (SUPPORT2) and mistyped identities (FEBRL4).

`flows/data/README.md` tells where the rows come from. Which columns sit where, and who has which identity, is our
arrangement: of 5,000 persons the lab holds 0 to 4,249 as they are, the insurer 750 to 4,999 with typing errors, so that
3,500 are shared. The clinic is a small one with a laboratory: it holds 150 to 899, has the lab's columns and knows who
died; the insurer knows 150 of its 750 patients. Each numbers its own people; the person behind a number stands in a
table `truth` that no dataset selects, for scoring the linkage alone.

::

    demo/
      vertical.yaml             lab and insurer, the same text as examples/vertical.yaml
      transfer.yaml             clinic and insurer, the same text as examples/transfer.yaml
      lab/      party.yaml      lab.duckdb         tables patients, results, truth
      clinic/   party.yaml      clinic.duckdb      the same, with the outcome
      insurer/  party.yaml      insurer.duckdb     tables members, truth
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

import duckdb
import yaml

from ..parties.errors import InputError, disk_errors
from ..parties.home import PARTY_FILE, PartyHome
from .homemaking import MARKER, claim, make_data, refuse_strangers, write_unless_edited
from .kinds.transfer.job import TransferJob
from .kinds.vertical.job import VerticalJob

PATIENTS = 5_000
MIN_PATIENTS = 100
JOB_FILE, TRANSFER_FILE = "vertical.yaml", "transfer.yaml"
_DATA_VERSION = 1  # raise it when the tables change, so that existing demo homes get new ones
_FLOOR = 100

JOB = Template("""\
# Who of our members will not leave hospital alive? A lab and an insurer learn it together; neither shows its rows.
kind: vertical
name: hospital-mortality
purpose: mortality risk at admission        # every party's policy must allow it word for word

parties:
  - name: insurer
    dataset: members
    columns: [age, sex, race, income, edu, dzgroup, dzclass, ca, num_co, diabetes, dementia]
    label: hospdead                         # the party with the label is the active one
  - name: lab
    dataset: results
    columns: ["*"]                          # all that the lab's policy releases

align:
  passes:                                   # strong to weak; each pass looks at whoever is left
    - [national_id]
    - [names, birth_date]
    - [birth_date, postcode]
    - [given_name, surname, postcode]
    - [surname, address, postcode]
  at_least: $floor                             # stop when fewer patients are shared

model: {kind: network, bottom: [64, 32], top: [32], dropout: 0.3}     # or {kind: logistic}
training: {epochs: 30, batch_size: 64, learning_rate: 0.001, patience: 5, seed: 7}
""")

TRANSFER_JOB = Template("""\
# A small clinic learns from an insurer who knows other facts about few of its patients, and many other people.
kind: transfer
name: clinic-learns
purpose: mortality risk at admission        # every party's policy must allow it word for word

source:                                     # has many rows, and learns from all of them by itself
  name: insurer
  dataset: members
  columns: [age, sex, race, income, edu, dzgroup, dzclass, ca, num_co, diabetes, dementia]
  label: hospdead
target:                                     # learns from what the source tells of the patients they share
  name: clinic
  dataset: results
  columns: ["*"]                            # all that the clinic's policy releases
  label: hospdead                           # null for patients whose outcome is not known; none known: no label

align:
  passes:                                   # strong to weak; each pass looks at whoever is left
    - [national_id]
    - [names, birth_date]
    - [birth_date, postcode]
    - [given_name, surname, postcode]
    - [surname, address, postcode]
  at_least: $floor                             # stop when fewer patients are shared

give: score                                 # one number a shared patient; or embedding: a vector
pretraining: {how: supervised, epochs: 12}  # or self_supervised: then give: embedding, and no source.label
distill: true                               # also a model that the clinic runs without the insurer
seed: 7
""")

_IDENTIFIERS = """\
    identifiers:                    # what a linkage may use; jobs name these, not the columns
      national_id: soc_sec_id
      names: [given_name, surname]  # several columns are one identifier whose order does not matter
      given_name: given_name
      surname: surname
      birth_date: {column: date_of_birth, format: "%Y%m%d"}
      postcode: postcode
      address: address_1
"""

_REST = Template("""\
  max_epochs: 100
  publish: [counts, metrics, curves]      # what the Prefect server and the report may be told
  pooled_baselines: allow                 # ONLY a simulation sets this: one process may read both parties' rows

seed: $seed                                   # only a simulation sets this: fixes initial weights and dropout
""")

LABORATORY = Template("""\
# The $party's own rules, written by its own engineer. (Made by `isthmus demo`, which leaves it alone once you edit it.)
name: $party
data: $party.duckdb                    # opened read-only and briefly

datasets:
  results:
    sql: |
      SELECT p.*, r.* EXCLUDE (patient)
      FROM patients p JOIN results r ON r.patient = p.id
    row_id: id                      # unique, never null, never leaves
$identifiers
policy:                             # what is not allowed here is refused
  kinds: [$kind]
  purposes: [mortality risk at admission]
  peers: [insurer]
  starts:                           # in a consortium: whose signature starts which jobs, and how often
    insurer: {$kind: 20 per day}
    coordinator: {$kind: 100 per day}   # of `isthmus up`: it signs what is started in the Prefect UI
  release:
    results:
      columns: [meanbp, wblc, hrt, resp, temp, pafi, alb, bili, crea, sod, ph, glucose, bun, urine, scoma]
$own      at_least: $floor                       # no job below so many shared patients
      may_learn_membership: [insurer]     # the insurer learns which of its members were tested here
$rest""")
_CLINICS_OWN = """\
      labels: [hospdead]
      cohort: 10                          # no number about fewer patients with either outcome
"""

INSURER = Template("""\
# The insurer's own rules, written by its engineer. (Made by `isthmus demo`, which leaves it alone once you edit it.)
name: insurer
data: insurer.duckdb                # opened read-only and briefly

datasets:
  members:
    sql: SELECT * FROM members
    row_id: id                      # unique, never null, never leaves
$identifiers
policy:                             # what is not allowed here is refused
  kinds: [vertical, transfer]
  purposes: [mortality risk at admission]
  peers: [lab, clinic]
  starts:                           # in a consortium: whose signature starts which jobs, and how often
    insurer: {vertical: 20 per day, transfer: 20 per day}
    coordinator: {vertical: 100 per day, transfer: 100 per day}   # of `isthmus up`: it signs what is started in the UI
  max_embedding: 32                       # numbers that may tell a clinic of each shared patient; 1 is a score
  release:
    members:
      columns: [age, sex, race, income, edu, dzgroup, dzclass, ca, num_co, diabetes, dementia]
      labels: [hospdead]
      cohort: 10                          # the smallest part of shared patients that one model leaves out
      at_least: $floor                       # no job below so many shared patients
      may_learn_membership: [lab, clinic] # they learn which of their patients are members
$rest""")

_PEOPLE = """
CREATE TABLE truth AS
SELECT $first_id + row_number() OVER (ORDER BY sha256('$party' || $seed || ' ' || person)) AS id, person
FROM read_parquet('$identities')
WHERE copy = '$copy' AND person >= $low AND person < $high
ORDER BY id;
"""
_LAB_TABLES = """
CREATE TABLE patients AS
SELECT t.id, i.* EXCLUDE (person, copy)
FROM truth t JOIN read_parquet('$identities') i USING (person) WHERE i.copy = '$copy' ORDER BY t.id;
CREATE TABLE results AS
SELECT t.id AS patient, s.meanbp, s.wblc, s.hrt, s.resp, s.temp, s.pafi, s.alb, s.bili, s.crea, s.sod, s.ph, s.glucose,
       s.bun, s.urine, s.scoma$outcome
FROM truth t JOIN read_parquet('$support2') s USING (person) ORDER BY t.id;
"""
_INSURER_TABLES = """
CREATE TABLE members AS
SELECT t.id, i.* EXCLUDE (person, copy), s.age, s.sex, s.race, s.income, s.edu, s.dzgroup, s.dzclass, s.ca, s.num_co,
       s.diabetes, s.dementia, s.hospdead
FROM truth t JOIN read_parquet('$identities') i USING (person) JOIN read_parquet('$support2') s USING (person)
WHERE i.copy = '$copy' ORDER BY t.id;
"""


def make_homes(folder: Path, *, patients: int | None = None, seed: int = 1) -> None:
    """Make the homes `lab`, `clinic` and `insurer`, and the job files, below `folder`.

    `patients` persons (default all 5,000) are spread as in the whole demo: 15 % only at the lab, 70 % at lab and
    insurer, 15 % only at the insurer, and the clinic's own 15 %, of whom the insurer knows a fifth; `seed` numbers
    them, and is what the parties draw initial weights from. State, runs and models of an earlier demo stay, and so does
    a file that somebody has edited since.

    Raises `InputError` for a home that the demo did not make, which is left as it is.
    """
    count = _checked(patients)
    only_here = round(0.15 * count)
    known = round(0.03 * count)  # of the clinic's patients, to the insurer
    floor = f"{_floor(count):<3}"
    lab: dict[str, Any] = {"copy": "original", "low": 0, "high": count - only_here, "first_id": 200_000, "outcome": ""}
    clinic = {**lab, "low": known, "high": only_here + known, "first_id": 500_000, "outcome": ", s.hospdead"}
    insurer: dict[str, Any] = {"copy": "corrupted", "low": only_here, "high": count, "first_id": 7_000_000}
    parties = [
        ("lab", LABORATORY, {"kind": "vertical", "own": ""}, lab, _LAB_TABLES),
        ("insurer", INSURER, {}, insurer, _INSURER_TABLES),
        ("clinic", LABORATORY, {"kind": "transfer", "own": _CLINICS_OWN}, clinic, _LAB_TABLES),
    ]
    for party, *_ in parties:
        refuse_strangers(folder / party)
    for number, (party, config, own, rows, tables) in enumerate(parties):
        home = folder / party
        words = {**own, "party": party, "floor": floor, "identifiers": _IDENTIFIERS}
        with disk_errors(party):
            claim(home)
            wanted = {"version": _DATA_VERSION, "party": party, "seed": seed, **rows}
            make_data(home / f"{party}.duckdb", wanted, Template(_PEOPLE + tables))
            write_unless_edited(home / PARTY_FILE, config.substitute(words, rest=_REST.substitute(seed=seed + number)))
    write_unless_edited(folder / JOB_FILE, job_text(patients))
    write_unless_edited(folder / TRANSFER_FILE, transfer_text(patients))


def job_text(patients: int | None = None) -> str:
    """The demo's job as the YAML that `examples/vertical.yaml` holds."""
    return JOB.substitute(floor=f"{_floor(_checked(patients)):<3}")


def transfer_text(patients: int | None = None) -> str:
    """The clinic's job as the YAML that `examples/transfer.yaml` holds."""
    return TRANSFER_JOB.substitute(floor=f"{_floor(_checked(patients)):<3}")


def transfer_job(patients: int | None = None, *, epochs: int | None = None) -> TransferJob:
    """The clinic's job, for `patients` persons in all; `epochs` replaces those of the source's pretraining."""
    content = yaml.safe_load(transfer_text(patients))
    content["pretraining"] |= {"epochs": epochs} if epochs is not None else {}
    return TransferJob.model_validate(content)


def demo_job(patients: int | None = None, *, epochs: int | None = None, seed: int | None = None) -> VerticalJob:
    """The demo's job, for `patients` persons in all; `epochs` and `seed` replace those of the file."""
    content = yaml.safe_load(job_text(patients))
    content["training"] |= {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    return VerticalJob.model_validate(content)


def true_persons(home: PartyHome) -> dict[str, int] | None:
    """Who is behind each row id of a demo home; None where there is no such table, as at every real party."""
    if home.data_file is None or not (home.folder / MARKER).is_file():
        return None
    with duckdb.connect(home.data_file, read_only=True) as connection:
        if not connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'truth'").fetchone():
            return None
        rows = connection.execute("SELECT CAST(id AS VARCHAR), person FROM truth").fetchall()
    return {str(row[0]): int(row[1]) for row in rows}


def _checked(patients: int | None) -> int:
    if patients is None:
        return PATIENTS
    if not MIN_PATIENTS <= patients <= PATIENTS:
        raise InputError("job.invalid", problem=f"the demo has {MIN_PATIENTS} to {PATIENTS} patients, not {patients}")
    return patients


def _floor(patients: int) -> int:
    """The same share of a smaller demo, so that a policy with a sensible floor does not stop it."""
    return max(2, _FLOOR * patients // PATIENTS)
