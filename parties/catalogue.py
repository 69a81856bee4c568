"""The words of every error, by its stable code: what happened, and what to do next.

`errors` fills them with facts. A code's first word says which class raises it; once released, a code is not renamed.
What only happens between members is in `catalogue_consortium`, what in operation in `catalogue_operation`.
"""

from __future__ import annotations

from .catalogue_consortium import CONSORTIUM
from .catalogue_operation import OPERATION
from .words import Words

CATALOGUE: dict[str, Words] = {
    **CONSORTIUM,
    **OPERATION,
    # --- the job -----------------------------------------------------------------------------------------------------
    "job.missing": Words("there is no job file '{file}'", "check the path; `isthmus demo` makes an example"),
    "job.not_yaml": Words("the job file is not YAML (line {line})", "mend the line; `isthmus schema` helps an editor"),
    "job.invalid": Words("{problem}", "see `isthmus schema` for the fields of a job"),
    "job.member_unknown": Words("'{party}' takes no part in this job", "name one of its members with --as"),
    "job.party_unknown": Words("there is no home of '{party}' here", "make its home, or name the folder with --homes"),
    "job.not_agreed": Words(
        "{party} and {peer} were given different jobs: '{field}' differs", "give every party the same job file"
    ),
    "run.unknown": Words("there is no run '{run}'", "`isthmus runs` lists them"),
    "run.other_job": Words(
        "what {party} was told to run is not a run of the job that it was given",
        "`isthmus run` and `isthmus join` name runs by their job: start it with one of them",
    ),
    "run.realigned": Words("the shared patients are no longer those that were aligned", "align again, then train"),
    "run.active": Words("this job is already running", "wait for it to end, or stop it"),
    "run.interrupted": Words("stopped before the end", "start the same job again: it goes on where it stopped"),
    # --- a party's home and data ------------------------------------------------------------------------------------
    "home.missing": Words("{party} has no readable party.yaml", "write one: README, 'Your own data'"),
    "home.foreign": Words(
        "the home of '{party}' was not made by the demo, which will not write over it",
        "name another folder with --homes",
    ),
    "home.invalid": Words("{party}'s party.yaml is wrong at '{field}': {problem}", "mend party.yaml"),
    "home.no_identity": Words(
        "{party}'s identity.key is gone",
        "restore it from where you keep it; or make a new one with `isthmus init`, and renew the entry in the roster",
    ),
    "data.file_missing": Words("{party}'s data file does not exist", "check `data:` in its party.yaml"),
    "data.locked": Words(
        "{party}'s data file is held open for writing by another process", "close that process and start the job again"
    ),
    "data.file_invalid": Words("{party}'s data file is not a DuckDB database", "check `data:` in its party.yaml"),
    "data.dataset_unknown": Words(
        "{party} has no dataset '{dataset}'", "name one of the datasets in its party.yaml, or add it there"
    ),
    "data.sql": Words(
        "the SQL of {party}'s dataset '{dataset}' fails",
        "try it in DuckDB; a run leaves DuckDB's own words in runs/<run>/vault.log of {party}'s home",
    ),
    "data.column_unknown": Words(
        "{party}'s dataset '{dataset}' has no column '{column}'", "mend the job's columns or the dataset's SQL"
    ),
    "data.column_type": Words(
        "column '{column}' of {party}'s dataset '{dataset}' is not what `types:` promises",
        "cast it in the SQL, or mend `types:` in party.yaml",
    ),
    "data.column_unsupported": Words(
        "column '{column}' of {party}'s dataset '{dataset}' is neither a number nor text",
        "cast it in the dataset's SQL (a date, for instance, to an age in years)",
    ),
    "data.column_empty": Words(
        "column '{column}' of {party}'s dataset '{dataset}' has no value at all", "leave it out of the job"
    ),
    "data.row_id": Words(
        "the row_id of {party}'s dataset '{dataset}' is null or repeated in {count} rows",
        "name a column in party.yaml that is unique and never null",
    ),
    "data.empty": Words("{party}'s dataset '{dataset}' has no rows", "check its SQL"),
    "data.no_columns": Words("{party}'s dataset '{dataset}' gives the job no column", "name at least one column"),
    "data.identifier_unknown": Words(
        "{party}'s dataset '{dataset}' has no identifier '{identifier}'", "add it under `identifiers:` in party.yaml"
    ),
    "data.identifier_format": Words(
        "no value of identifier '{identifier}' in {party}'s dataset '{dataset}' fits its date format",
        "mend `format:` in party.yaml",
    ),
    "data.label_missing": Words("{party}'s label '{column}' is null in {count} rows", "drop those rows in the SQL"),
    "data.label_constant": Words("{party}'s label '{column}' has the same value in every row", "choose another label"),
    "data.label_not_binary": Words("{party}'s label '{column}' is not 0 and 1", "make it 0 and 1 in the SQL"),
    "data.label_not_number": Words(
        "{party}'s label '{column}' is not a number", "cast it in the SQL, or choose another label"
    ),
    "data.split": Words(
        "the {part} part of the shared patients does not hold both outcomes",
        "align more patients, or give that part a larger share",
    ),
    "data.changed": Words(
        "{party}'s dataset '{dataset}' has lost rows that the alignment names",
        "start over with --fresh, which aligns again",
    ),
    "data.too_large": Words(
        "column '{column}' of {party} holds a value that is too large beside the others to be added up",
        "look at the column's greatest values, and mend or leave them out in the SQL",
    ),
    "data.part": Words(
        "column '{column}' of {party}'s dataset '{dataset}' does not say train, validation or test in every row",
        "mend the SQL, or leave out `split.column`",
    ),
    "data.few_rows": Words(
        "{party} has {count} rows to learn from and needs {allowed}", "bring more rows, or lower `split`'s shares"
    ),
    "data.duration": Words(
        "{party}'s duration '{column}' is null or not above zero, rows: {count}",
        "in the SQL, make 0 half a unit (greatest(days, 0.5)) and leave out only rows where it is not known",
    ),
    "schema.differs": Words(
        "parties whose data differ from the columns that the job names: {count}",
        "see the list above: mend the parties' SQL, types or units, or the job's columns",
    ),
    "schema.invalid": Words(
        "{party}'s schema file is wrong at '{field}': {problem}",
        "write it anew at {party}: `isthmus describe {party}`",
    ),
    "schema.missing": Words(
        "neither a home nor a schema file of {party} is here",
        "at {party}: `isthmus describe {party} --out {party}.schema.yaml`; put that file into a folder here and name "
        "the folder with --schemas",
    ),
    "schema.empty": Words(
        "{party}'s policy releases no dataset, so there is nothing to describe", "write `release:` in its party.yaml"
    ),
    "rehearsal.folder": Words(
        "the folder to keep a rehearsal in is not empty", "name another one with --keep, or remove what is in it"
    ),
    "model.unknown": Words(
        "{party} cannot import the job's own model", "install the package that holds it at {party}; see its log"
    ),
    "model.invalid": Words(
        "the job's own model does not work at {party}",
        "it has to be a torch.nn.Module made from (inputs, **options) that gives one number a row; see the log",
    ),
    "model.parameters": Words(
        "the parameters of {party}'s model are not those of the others",
        "install the same code, with the same options, at every party",
    ),
    "model.start_missing": Words(
        "{party} holds no model with the digest that the job starts from",
        "put its file under models/ in {party}'s home, or mend `start` in the job: `sha256sum` prints a file's digest",
    ),
    "model.start_differs": Words(
        "the model that {party} starts from differs from the job in its '{field}'",
        "copy `columns`, `label`, `model` and `split` from the job that trained it; the file has to be one that a "
        "training wrote",
    ),
    "start.unknown": Words(
        "no finished run of the job '{name}' is known here to start from",
        "run that job first, name the folder with --runs, or give `start.digest`",
    ),
    "transfer.unlabelled": Words(
        "no patient of {party} has a value of the label '{column}'",
        "name another label; or leave it out and set `distill: true` with `give: score`, which needs none",
    ),
    "transfer.few_labels": Words(
        "too few of the shared patients have an outcome at {party}: {allowed} of each outcome are needed",
        "share more labelled patients; or leave the label out and set `distill: true` with `give: score`",
    ),
    "embedding.repeated": Words(
        "{party} has given another embedding in this run, and two tell more of a patient than one",
        "its rows or the shared patients have changed since then: start over with --fresh, if that is meant",
    ),
    "embedding.constant": Words(
        "{party}'s embedding says the same of every shared patient",
        "give the source columns that differ between patients, or train it longer",
    ),
    "train.diverged": Words(
        "the training loss is no longer a number in epoch or round {epoch}", "lower the job's `learning_rate`"
    ),
    "update.not_finite": Words(
        "{party}'s update holds something that is no number, so it was not sent", "lower the learning rate"
    ),
    "update.too_large": Words(
        "{party}'s update is larger than what would carry it can hold, so it was not sent",
        "lower the learning rate, clip updates, or set `secure_bits: 64`",
    ),
    # --- refusals ---------------------------------------------------------------------------------------------------
    "policy.kind": Words("{party} does not take part in '{kind}' jobs", "ask {party} to add it to its policy's kinds"),
    "policy.purpose": Words("{party} does not allow this purpose", "ask {party} to add it to its policy's purposes"),
    "policy.peer": Words("{party} does not work with {peer}", "ask {party} to add it to its policy's peers"),
    "policy.dataset": Words("{party} does not release dataset '{dataset}'", "ask {party} to add it under `release:`"),
    "policy.column": Words(
        "{party} does not release column '{column}' of '{dataset}'",
        "remove the column, or ask {party} to add it to its policy",
    ),
    "policy.label": Words(
        "{party} does not allow '{column}' as a label", "ask {party} to add it to `labels:` in its policy"
    ),
    "policy.epochs": Words(
        "{party} allows {allowed} epochs, the job asks {asked}",
        "lower the job's `epochs`, or ask {party} to raise `max_epochs:` in its policy",
    ),
    "policy.rounds": Words(
        "{party} allows {allowed} rounds, the job asks {asked}",
        "lower `rounds.count`, or ask {party} to raise `max_rounds:` in its policy",
    ),
    "policy.embedding": Words(
        "{party} lets {allowed} numbers of each shared patient leave, the job asks {asked}",
        "ask {party} to raise `max_embedding:` in its policy; a score is 1, an embedding as wide as the last of "
        "`pretraining.hidden`",
    ),
    "policy.no_floor": Words(
        "{party} does not let patients of '{dataset}' be linked",
        "ask {party} to set `at_least`: the smallest number of shared patients",
    ),
    "policy.membership": Words(
        "{party} does not let {peer} learn which patients it shares",
        "ask {party} to add {peer} to `may_learn_membership:`",
    ),
    "policy.too_few": Words(
        "there are fewer shared patients than a party's floor allows",
        "check that both sides write their identifiers alike; a floor is `at_least` in the job and the policies, "
        "and for a transfer's source `pretraining.folds` times its `cohort`",
    ),
    "policy.baselines": Words(
        "{party} does not allow its rows to be pooled for a comparison",
        "leave out --baselines: only a simulation sets `pooled_baselines: allow`",
    ),
    "policy.plain_updates": Words(
        "{party} does not let the coordinator see its own updates and sums",
        "leave `secure_aggregation` on, or ask {party} for `plain_updates: allow` in its policy",
    ),
    "policy.model": Words("{party} does not run this model's code", "ask {party} to add it to its policy's models"),
    "policy.cohort": Words(
        "{party} lets no number about a group of its patients go",
        "ask {party} to set `cohort` of dataset '{dataset}': the smallest group that may be told of",
    ),
    # --- secure aggregation: what a party refuses ---------------------------------------------------------------------
    "secagg.too_few": Words(
        "{count} parties are too few for a sum that hides each of them", "at least {allowed} have to take part"
    ),
    "secagg.repeated": Words(
        "{party} has given this sum already, with other parties or in another round",
        "two such sums can give a party away: name the same parties as then; after a training, start over with --fresh",
    ),
    "secagg.survivors": Words(
        "{party} was asked to unmask for parties that were not in the sum",
        "the coordinator does not keep to the protocol",
    ),
    "secagg.consent": Words(
        "{party} saw {count} signatures under the list of those in the sum, and {allowed} have to be there",
        "the parties were told different lists, or the `keys:` of the homes differ: compare them with `isthmus keys`",
    ),
    "secagg.signature": Words(
        "{party} found a signature that is not {peer}'s", "compare the `keys:` of both homes with `isthmus keys`"
    ),
    "home.key_unknown": Words(
        "{party} does not know the key of {peer}", "add it under `keys:` in its party.yaml: `isthmus keys` prints them"
    ),
    "align.none": Words("the parties share no patient", "check that both sides write their identifiers alike"),
    "align.no_keys": Words(
        "no row of {party} has a complete linkage key",
        "check `identifiers:` in party.yaml and `align.passes` in the job",
    ),
    # --- peers ------------------------------------------------------------------------------------------------------
    "sum.impossible": Words(
        "the parties' numbers add up to what no rows could have given",
        "one of the parties does not keep to the protocol, or runs another version: compare `isthmus --version`",
    ),
    "rounds.quorum": Words(
        "too few parties are left: the job needs {allowed}",
        "start the job again when the others are back: it goes on with the last whole round",
    ),
    "vault.died": Words("{party}'s vault ended without a word", "see its log; start the job again: it resumes"),
    # --- the machine and ourselves ------------------------------------------------------------------------------------
    "disk.full": Words(
        "{party} cannot write: no space is left", "make room and start the same job again: it goes on where it stopped"
    ),
    "disk.denied": Words("{party} cannot write into its folder", "check that it is a folder, its owner and its mode"),
    "home.busy": Words(
        "{party}'s state is in use by another process", "close what has its state.duckdb open and start the job again"
    ),
    "ledger.broken": Words("{party}'s ledger does not verify at entry {entry}", "`isthmus audit verify` says more"),
    "platform.no_psi": Words(
        "private set intersection has no engine for this machine",
        "use Linux x86-64 with glibc 2.35 or newer, or macOS 14 on arm64",
    ),
    "prefect.unreachable": Words(
        "no Prefect server answers at PREFECT_API_URL", "start it (`prefect server start`), or unset the variable"
    ),
    "internal": Words("something failed inside {party}, which is our fault", "the trace is in {party}'s own log"),
}
