"""Five hospitals with the same columns about different patients, and a coordinator who holds none.

The 5,000 patients are SUPPORT2's (`flows/data/README.md` tells where the rows come from); each is in one hospital only.
No such hospitals took part: **who is where is our arrangement**, and it is not random, so that the hospitals differ as
real ones do. Each hospital has a field of its own:

- `north`: respiratory or multiple organ failure with sepsis, the largest;
- `south`: chronic disease (heart failure, COPD, cirrhosis);
- `east`: cancer of the colon or lung;
- `west`: coma, and multiple organ failure with a malignancy: the most deaths;
- `central`: everybody of 80 years and more, whatever the disease; the others' own patients are younger.

Eighty in a hundred patients are where that says, the other twenty anywhere, most of them in the larger hospitals (35,
25, 20, 10 and 10 %, in the order above); a hash of the patient's number decides. So a disease or an age that is common
in one hospital occurs in the others too. With all 5,000:

======== ======== ============= ========
hospital patients mean age      died in hospital
======== ======== ============= ========
north    1,727    57.8          31.1 %
south    1,326    62.5          13.8 %
east     821      62.5          12.5 %
west     599      58.5          52.3 %
central  527      81.6          29.8 %
======== ======== ============= ========

`admitted_week` (1-52, half as many again in the winter's weeks 1-9 and 44-52) and `region` (coast 45, valley 30, hills
18, island 7 %) are ours as well, by hashes that know nothing of the patient. They are there to be counted.

::

    hospitals/
      hospitals.yaml            the training job, the same text as examples/hospitals.yaml
      statistics.yaml           the statistics job, the same text as examples/statistics.yaml
      finetune.yaml             one hospital goes on from the common model, the same text as examples/finetune.yaml
      north/        party.yaml      north.duckdb        table patients
      south/  east/  west/  central/                    likewise
      coordinator/  party.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

from ..parties.errors import InputError, disk_errors
from ..parties.home import PARTY_FILE, PartyHome
from ..parties.identity import Identity
from .homemaking import claim, make_data, refuse_strangers, write_unless_edited

HOSPITALS = ("north", "south", "east", "west", "central")
COORDINATOR = "coordinator"
MEMBERS = (*HOSPITALS, COORDINATOR)
HOSPITALS_FILE, STATISTICS_FILE, FINETUNE_FILE = "hospitals.yaml", "statistics.yaml", "finetune.yaml"
PATIENTS = 5_000
MIN_PATIENTS = 250  # with fewer, a hospital would be left with a handful
_DATA_VERSION = 1  # raise it when the table changes, so that existing homes get new ones

HOSPITALS_JOB = """\
# Who will not leave hospital alive? Five hospitals with the same columns about different patients learn it together.
kind: horizontal
name: five-hospitals
purpose: mortality risk at admission        # every party's policy must allow it word for word
coordinator: coordinator                    # brings no rows; sees sums over all hospitals, never one's own

parties:
  - {name: north, dataset: admissions}
  - {name: south, dataset: admissions}
  - {name: east, dataset: admissions}
  - {name: west, dataset: admissions}
  - {name: central, dataset: admissions}

columns:                                    # what every hospital brings: compared before training
  - {name: age, kind: number, unit: years}
  - {name: sex, kind: category, levels: [female, male]}
  - {name: dzclass, kind: category, levels: [ARF/MOSF, COPD/CHF/Cirrhosis, Cancer, Coma]}
  - name: dzgroup
    kind: category
    levels: [ARF/MOSF w/Sepsis, MOSF w/Malig, CHF, COPD, Cirrhosis, Colon Cancer, Lung Cancer, Coma]
  - {name: ca, kind: category, levels: ["no", "yes", metastatic]}
  - {name: num_co, kind: number, unit: diseases}
  - {name: diabetes, kind: number}
  - {name: dementia, kind: number}
  - {name: scoma, kind: number, unit: points}
  - {name: meanbp, kind: number, unit: mmHg}
  - {name: hrt, kind: number, unit: 1/min}
  - {name: resp, kind: number, unit: 1/min}
  - {name: temp, kind: number, unit: Celsius}
  - {name: pafi, kind: number, unit: mmHg}
  - {name: wblc, kind: number, unit: 1000/uL}
  - {name: alb, kind: number, unit: g/dL}
  - {name: bili, kind: number, unit: mg/dL}
  - {name: crea, kind: number, unit: mg/dL}
  - {name: bun, kind: number, unit: mg/dL}
  - {name: glucose, kind: number, unit: mg/dL}
  - {name: sod, kind: number, unit: mmol/L}
  - {name: ph, kind: number}
  - {name: urine, kind: number, unit: mL/day}

label: {column: hospdead}
model: {kind: network, hidden: [32, 16], dropout: 0.2}
strategy: fedavg                            # or fedprox, scaffold, fedadam, ...
rounds: {count: 30, local_epochs: 1, batch_size: 32, learning_rate: 0.2, patience: 6, seed: 7}
split: {validation_share: 0.2, test_share: 0.2}
subgroups: [sex, dzclass]                   # metrics of each, above every hospital's cohort floor
"""

STATISTICS_JOB = """\
# What do five hospitals' patients look like together? Only sums over all of them are seen, and no small group's.
kind: statistics
name: admissions-overview
purpose: overview of admissions             # every party's policy must allow it word for word
coordinator: coordinator                    # brings no rows; sees sums over all hospitals, never one's own

parties:
  - {name: north, dataset: admissions}
  - {name: south, dataset: admissions}
  - {name: east, dataset: admissions}
  - {name: west, dataset: admissions}
  - {name: central, dataset: admissions}

columns:                                    # what every hospital brings: compared before anything is counted
  - {name: age, kind: number, unit: years}
  - {name: meanbp, kind: number, unit: mmHg}
  - {name: crea, kind: number, unit: mg/dL}
  - {name: sex, kind: category, levels: [female, male]}
  - {name: dzclass, kind: category, levels: [ARF/MOSF, COPD/CHF/Cirrhosis, Cancer, Coma]}
  - {name: region, kind: category, levels: [coast, valley, hills, island]}
  - name: admitted_week
    kind: category
    levels: ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19",
             "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "33", "34", "35", "36",
             "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47", "48", "49", "50", "51", "52"]

tables:                                     # counts, with their margins
  - [admitted_week, region]
  - [dzclass, sex]
curves:                                     # survival (Kaplan-Meier), by day
  - {name: survival, duration: d_time, event: death, by: dzclass, until: 730, unit: 1}
at_least: 10                                # a count of fewer patients is never told, nor what would give it away
"""

FINETUNE_JOB = """\
# The common model of five hospitals suits one of them less than its own: can it be tuned there? Nothing leaves it.
kind: finetune
name: east-finetune
purpose: mortality risk at admission        # the party's policy must allow it word for word

party: {name: east, dataset: admissions}
columns: [age, sex, dzclass, dzgroup, ca, num_co, diabetes, dementia, scoma, meanbp, hrt, resp, temp, pafi, wblc, alb,
          bili, crea, bun, glucose, sod, ph, urine]       # those of the model

label: {column: hospdead}
model: {kind: network, hidden: [32, 16], dropout: 0.2}    # that of the model
start: {job: five-hospitals}                # its newest finished run; or {digest: ...}, of a file in east's home
tuning: {trunk: tuned, head: ["output.*"], epochs: 60, batch_size: 32, learning_rate: 0.001, patience: 6, seed: 7}
split: {validation_share: 0.2, test_share: 0.2}           # of a model that east took part in, its split holds
"""

JOBS = {HOSPITALS_FILE: HOSPITALS_JOB, STATISTICS_FILE: STATISTICS_JOB, FINETUNE_FILE: FINETUNE_JOB}

_HOSPITAL = Template("""\
# The rules of hospital $name, written by its own engineer. (Made by `isthmus demo hospitals`, which leaves it alone
# once you edit it.)
name: $name
data: $name.duckdb

datasets:
  admissions:
    sql: SELECT * FROM patients
    row_id: id                      # unique, never null, never leaves
    types: {admitted_week: category}
    units:                          # compared with the job's before anything is computed
      {age: years, num_co: diseases, scoma: points, meanbp: mmHg, hrt: 1/min, resp: 1/min, temp: Celsius, pafi: mmHg,
       wblc: 1000/uL, alb: g/dL, bili: mg/dL, crea: mg/dL, bun: mg/dL, glucose: mg/dL, sod: mmol/L, urine: mL/day}

policy:                             # what is not allowed here is refused
  kinds: [horizontal, statistics, finetune]
  purposes: [mortality risk at admission, overview of admissions]
  peers: [$peers]
  starts:                           # in a consortium: whose signature starts which jobs, and how often
    coordinator: {horizontal: 100 per day, statistics: 100 per day}
    $name: {finetune: 20 per day}
  release:
    admissions:                     # race, income and edu are in the table and are not released
      columns: [age, sex, dzclass, dzgroup, ca, num_co, diabetes, dementia, scoma, meanbp, hrt, resp, temp, pafi, wblc,
                alb, bili, crea, bun, glucose, sod, ph, urine, admitted_week, region]
      labels: [hospdead, d_time, death]
      cohort: 10                    # no number about fewer patients
  max_rounds: 100
  max_epochs: 100                   # of tuning a model further, which sends nothing
  plain_updates: deny               # the coordinator sees sums over the hospitals, never this hospital's own
  models: []                        # model classes of one's own that may run here, by dotted path
  publish: [counts, metrics, curves]      # what the Prefect server and the report may be told

# The members' public keys, each of whom holds the other half in its home.
keys:$keys

seed: $seed                             # only a simulation sets this: fixes initial weights and dropout
""")

_COORDINATOR = Template("""\
# The coordinator's own rules. It holds no data. (Made by `isthmus demo hospitals`, which leaves it alone once
# you edit it.)
name: $name

policy:                             # what is not allowed here is refused
  kinds: [horizontal, statistics]
  purposes: [mortality risk at admission, overview of admissions]
  peers: [$peers]
  starts: {coordinator: {horizontal: 100 per day, statistics: 100 per day}}  # in a consortium: whose signature
  signs: [horizontal, statistics]   # in a consortium: what is started in the Prefect UI is signed in its name
  max_rounds: 100
  publish: [counts, metrics, curves]      # what the Prefect server and the report may be told

# The members' public keys, each of whom holds the other half in its home.
keys:$keys

seed: $seed                             # only a simulation sets this: fixes the first model's weights
""")

# `drawn` are hashes of the patient's number, which hang on no library's generator; the first ones drawn were kept.
_TABLE = Template("""
CREATE TABLE patients AS
WITH drawn AS (
    SELECT *,
           ('0x' || substr(sha256('isthmus hospitals, spread ' || person), 1, 8))::UBIGINT % 100 AS chance,
           ('0x' || substr(sha256('isthmus hospitals, week ' || person), 1, 8))::UBIGINT % 122 AS day,
           ('0x' || substr(sha256('isthmus hospitals, region ' || person), 1, 8))::UBIGINT % 100 AS place
    FROM read_parquet('$support2')
    WHERE person < $patients
), placed AS (
    SELECT *,
           CASE WHEN chance >= 98 THEN 'central' WHEN chance >= 96 THEN 'west' WHEN chance >= 92 THEN 'east'
                WHEN chance >= 87 THEN 'south' WHEN chance >= 80 THEN 'north'
                WHEN age >= 80 THEN 'central' WHEN dzgroup = 'ARF/MOSF w/Sepsis' THEN 'north'
                WHEN dzclass = 'COPD/CHF/Cirrhosis' THEN 'south' WHEN dzclass = 'Cancer' THEN 'east'
                ELSE 'west' END AS hospital
    FROM drawn
)
SELECT $first_id + row_number() OVER (ORDER BY sha256('$hospital' || $seed || ' ' || person)) AS id,
       (CASE WHEN day < 27 THEN 1 + day // 3 WHEN day < 95 THEN 10 + (day - 27) // 2
             ELSE 44 + (day - 95) // 3 END)::TINYINT AS admitted_week,
       CASE WHEN place < 45 THEN 'coast' WHEN place < 75 THEN 'valley' WHEN place < 93 THEN 'hills'
            ELSE 'island' END AS region,
       age, sex, race, income, edu, dzclass, dzgroup, ca, num_co, diabetes, dementia, scoma, meanbp, hrt, resp, temp,
       pafi, wblc, alb, bili, crea, bun, glucose, sod, ph, urine, hospdead, death, d_time
FROM placed
WHERE hospital = '$hospital'
ORDER BY id;
""")


def make_hospitals(folder: Path, *, patients: int | None = None, seed: int = 1) -> None:
    """Make the homes of the five hospitals and the coordinator, with keys that know each other, and the job files.

    The first `patients` of all 5,000 (the default) are there, a random part with the same hospitals; `seed` numbers
    them in each hospital, and is what the hospitals draw dropout from. State, runs and models of an earlier making
    stay, and so does a file that somebody has edited since.

    Raises `InputError` for a home that was not made here, which is left as it is.
    """
    count = PATIENTS if patients is None else patients
    if not MIN_PATIENTS <= count <= PATIENTS:
        raise InputError("job.invalid", problem=f"there are {MIN_PATIENTS} to {PATIENTS} patients, not {count}")
    for name in MEMBERS:
        refuse_strangers(folder / name)
    for number, name in enumerate(MEMBERS, start=1):
        home = folder / name
        with disk_errors(name):
            claim(home)
            if name != COORDINATOR:
                wanted = {"version": _DATA_VERSION, "hospital": name, "patients": count, "seed": seed}
                make_data(home / f"{name}.duckdb", {**wanted, "first_id": number * 100_000}, _TABLE)
            if not (home / PARTY_FILE).is_file():  # it takes a home to make its key, which the rules of all name
                write_unless_edited(home / PARTY_FILE, _rules(name, seed, {}))
    keys = {name: Identity(PartyHome(folder / name)).public.hex() for name in MEMBERS}
    for name in MEMBERS:
        with disk_errors(name):
            write_unless_edited(folder / name / PARTY_FILE, _rules(name, seed, keys))
    for file, text in JOBS.items():
        write_unless_edited(folder / file, text)


def _rules(name: str, seed: int, keys: Mapping[str, str]) -> str:
    """A member's party.yaml."""
    template = _COORDINATOR if name == COORDINATOR else _HOSPITAL
    peers = ", ".join(peer for peer in MEMBERS if peer != name)
    pinned = "".join(f'\n  {member}: "{key}"' for member, key in keys.items()) or " {}"
    return template.substitute(name=name, peers=peers, keys=pinned, seed=seed + MEMBERS.index(name))
