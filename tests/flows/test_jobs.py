"""Jobs: what a file may hold, how it is said what it may not, and what all parties compare."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.flows.jobs import PROTOCOL_VERSION, Job, load_job
from isthmus.flows.kinds import KINDS, room
from isthmus.flows.kinds.vertical.job import LogisticModel, NetworkModel, VerticalJob
from isthmus.parties.errors import InputError

JOB: dict[str, Any] = {
    "kind": "vertical",
    "name": "mortality",
    "purpose": "mortality risk",
    "parties": [
        {"name": "insurer", "dataset": "members", "columns": ["age", "sex"], "label": "died"},
        {"name": "lab", "dataset": "results"},
    ],
    "align": {"passes": [["national_id"], ["names", "birth_date"]], "at_least": 50},
    "model": {"kind": "network", "bottom": [8, 4], "top": [4]},
    "training": {"epochs": 4},
}
THREE = [*JOB["parties"], {"name": "clinic", "dataset": "visits", "columns": ["beds"]}]


def _with(*path: Any, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(JOB))
    inner: Any = content
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def _job(content: Any = None) -> VerticalJob:
    return VerticalJob.model_validate(content or JOB)


def _file(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "job.yaml"
    path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
    return path


def _refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        VerticalJob.from_file(path)
    assert caught.value.exit_code == 2
    return caught.value


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_good_file_is_read(tmp_path: Path) -> None:
    job = VerticalJob.from_file(_file(tmp_path, JOB))
    assert job == _job()
    assert VerticalJob.from_file(str(tmp_path / "job.yaml")) == job
    assert (job.active.name, [party.name for party in job.passive]) == ("insurer", ["lab"])
    assert job.party("lab").columns == ("*",)
    assert job.training.learning_rate == 0.001


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        error = _refused(path)
        assert (error.code, error.facts) == ("job.missing", {"file": str(path)})


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"kind: [vertical\nname: x", 2),
        (b"kind: vertical\nname: x: y", 2),
        (b"a: 1\nb: 2\nc: [\n\td: 1", 4),
        (b"name: \xff", 1),
        (b"name: \x00", 1),
        (b"name: 2020-13-45", 1),
        (b"name: " + b"9" * 5000, 1),
        (b"name: " + b"[" * 5000, 1),
        (b"name: !!python/object/apply:os.getcwd []", 1),
        (b"name: *nothing", 1),
    ],
)
def test_a_file_that_is_no_yaml_is_said_by_line(tmp_path: Path, content: bytes, line: int) -> None:
    error = _refused(_file(tmp_path, content))
    assert (error.code, error.facts["line"], error.where) == ("job.not_yaml", line, "job.yaml")


BAD: list[tuple[str, Any, str]] = [
    ("nothing", None, ""),
    ("a list", [1], ""),
    ("an unknown field", _with("surprise", value=1), "surprise"),
    ("no name", _with("name", value=...), "name"),
    ("a name with spaces", _with("name", value="my job"), "name"),
    ("a name with a line end", _with("name", value="job\n"), "name"),
    ("a name that climbs", _with("name", value="../job"), "name"),
    ("a name of 33", _with("name", value="a" * 33), "name"),
    ("another kind", _with("kind", value="horizontal"), "kind"),
    ("a long purpose", _with("purpose", value="x" * 201), "purpose"),
    ("one party", _with("parties", value=JOB["parties"][:1]), "parties"),
    ("17 parties", _with("parties", value=JOB["parties"] * 9), "parties"),
    ("the same party twice", _with("parties", 1, "name", value="insurer"), ""),
    ("a path for a party", _with("parties", 1, "name", value="/etc"), "parties.1.name"),
    ("no dataset", _with("parties", 1, "dataset", value=...), "parties.1.dataset"),
    ("SQL", _with("parties", 1, "sql", value="SELECT 1"), "parties.1.sql"),
    ("columns of text", _with("parties", 0, "columns", value="age"), "parties.0.columns"),
    ("a column that is a number", _with("parties", 0, "columns", value=["age", 1]), "parties.0.columns.1"),
    ("no label", _with("parties", 0, "label", value=None), ""),
    ("two labels", _with("parties", 1, "label", value="died"), ""),
    ("a label that is a column", _with("parties", 0, "label", value="age"), ""),
    ("a passive party with nothing", _with("parties", 1, "columns", value=[]), ""),
    ("no pass", _with("align", "passes", value=[]), "align.passes"),
    ("an empty pass", _with("align", "passes", value=[["a"], []]), "align"),
    ("17 passes", _with("align", "passes", value=[["a"]] * 17), "align.passes"),
    ("a floor of 0", _with("align", "at_least", value=0), "align.at_least"),
    ("a floor beyond msgpack", _with("align", "at_least", value=2**64), "align.at_least"),
    ("a model of no kind", _with("model", value={"kind": "forest"}), "model.kind"),
    ("a bottom of 0", _with("model", "bottom", value=[8, 0]), "model.bottom.1"),
    ("no bottom", _with("model", "bottom", value=[]), "model.bottom"),
    ("no merge like that", _with("model", "merge", value="max"), "model.merge"),
    ("all dropped out", _with("model", "dropout", value=1), "model.dropout"),
    ("a bottom of a logistic model", _with("model", value={"kind": "logistic", "bottom": [1]}), "model.bottom"),
    ("a model of text", _with("model", value="network"), "model"),
    ("no epoch", _with("training", "epochs", value=0), "training.epochs"),
    ("half an epoch", _with("training", "epochs", value=1.5), "training.epochs"),
    ("epochs in words", _with("training", "epochs", value="many"), "training.epochs"),
    ("no learning", _with("training", "learning_rate", value=0), "training.learning_rate"),
    ("learning NaN", _with("training", "learning_rate", value=float("nan")), "training.learning_rate"),
    ("decay NaN", _with("training", "weight_decay", value=float("nan")), "training.weight_decay"),
    ("a negative seed", _with("training", "seed", value=-1), "training.seed"),
    ("a seed of 64 bits", _with("training", "seed", value=2**63), "training.seed"),
    ("nothing to train on", _with("training", value={"validation_share": 0.45, "test_share": 0.45}), "training"),
]


@pytest.mark.parametrize(("content", "field"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_wrong_with_a_job_is_said_with_its_field(tmp_path: Path, content: Any, field: str) -> None:
    error = _refused(_file(tmp_path, content))
    assert (error.code, error.where) == ("job.invalid", f"job.yaml, {field}" if field else "job.yaml")
    assert "Value error" not in error.what
    assert len(error.what) < 120


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_with("parties", 1, "label", value="died"), "exactly one party must have a label, not 2"),
        (_with("kind", value="horizontal"), "Input should be 'vertical'"),
        (_with("model", value={"kind": "forest"}), "Input should be 'network' or 'logistic'"),
        (_with("model", value={"kind": "logistic", "bottom": [1]}), "there is no such field"),
    ],
)
def test_the_words_are_those_of_the_field_that_was_meant(tmp_path: Path, content: Any, words: str) -> None:
    assert _refused(_file(tmp_path, content)).what == words


def test_a_model_is_of_the_kind_that_it_names() -> None:
    assert isinstance(_job(_with("model", value=...)).model, NetworkModel)
    assert isinstance(_job(_with("model", value={"kind": "logistic"})).model, LogisticModel)
    assert isinstance(_job(_with("model", value={"bottom": [2]})).model, NetworkModel)


# --- what the parties compare ----------------------------------------------------------------------------------------


def test_the_digest_of_a_small_job_is_this_one() -> None:
    content = [
        3,
        {
            "align": {"at_least": 50, "passes": [["national_id"], ["names", "birth_date"]]},
            "exchange": None,
            "kind": "vertical",
            "model": {"bottom": [8, 4], "dropout": 0.1, "kind": "network", "merge": "concat", "top": [4]},
            "name": "mortality",
            "parties": [
                {"columns": ["age", "sex"], "dataset": "members", "label": "died", "name": "insurer"},
                {"columns": ["*"], "dataset": "results", "label": None, "name": "lab"},
            ],
            "purpose": "mortality risk",
            "training": {
                "batch_size": 64,
                "epochs": 4,
                "learning_rate": 0.001,
                "patience": 5,
                "seed": 7,
                "test_share": 0.2,
                "validation_share": 0.2,
                "weight_decay": 0.0,
            },
        },
    ]
    assert _job().digest() == hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
    assert _job().digest() == "4bfdf1a801f1dfd8a7a6a55ddeb8b5e19cec3992de250a23fff1ec2f3c02f793"
    assert PROTOCOL_VERSION == 3


def test_defaults_written_out_and_another_order_of_fields_are_the_same_job(tmp_path: Path) -> None:
    whole = _job().canonical()
    turned = dict(reversed(whole.items()))
    assert _job(turned).digest() == _job().digest()
    assert VerticalJob.from_file(_file(tmp_path, turned)).digest() == _job().digest()
    assert _job(json.loads(json.dumps(whole))) == _job()


CHANGES: list[tuple[tuple[Any, ...], Any]] = [
    (("name",), "other"),
    (("purpose",), "Mortality risk"),
    (("exchange",), "north"),
    (("parties", 0, "name"), "other"),
    (("parties", 0, "dataset"), "other"),
    (("parties", 0, "columns"), ["sex", "age"]),
    (("parties", 0, "columns"), ["age"]),
    (("parties", 0, "label"), "other"),
    (("parties",), list(reversed(JOB["parties"]))),
    (("align", "passes"), [["names", "birth_date"], ["national_id"]]),
    (("align", "passes"), [["national_id"], ["birth_date", "names"]]),
    (("align", "at_least"), 51),
    (("model", "kind"), "logistic"),
    (("model", "bottom"), [4, 8]),
    (("model", "top"), []),
    (("model", "merge"), "sum"),
    (("model", "dropout"), 0.2),
    (("training", "epochs"), 5),
    (("training", "batch_size"), 65),
    (("training", "learning_rate"), 0.002),
    (("training", "weight_decay"), 0.1),
    (("training", "patience"), 6),
    (("training", "validation_share"), 0.25),
    (("training", "test_share"), 0.25),
    (("training", "seed"), 8),
]


def test_every_change_of_a_field_is_another_digest() -> None:
    jobs = [_job()]
    for path, value in CHANGES:
        content = _with(*path, value=value)
        if value == "logistic":
            content["model"] = {"kind": "logistic"}
        jobs.append(_job(content))
    assert len({job.digest() for job in jobs}) == len(CHANGES) + 1


def test_every_field_of_a_job_is_among_the_changes() -> None:
    changed = {".".join(str(part) for part in path if not isinstance(part, int)) for path, _ in CHANGES}
    fields = {
        f"{outer}.{inner}" if outer else inner
        for outer, model in (
            ("", VerticalJob),
            *((name, type(getattr(_job(), name))) for name in ("align", "model", "training")),
            ("parties", type(_job().parties[0])),
        )
        for inner in model.model_fields
    }
    assert fields - changed == {"kind", "align", "model", "training"}  # one kind so far; the others by their fields


# --- names and terms -------------------------------------------------------------------------------------------------


def test_the_aliases_are_the_names_of_the_job_and_nothing_else() -> None:
    assert _job().aliases() == {
        *("vertical", "insurer", "members", "age", "sex", "died", "lab", "results"),
        *("national_id", "names", "birth_date"),
    }


def test_the_terms_are_what_a_policy_judges() -> None:
    terms = _job().terms("insurer")
    assert (terms.kind, terms.purpose, terms.party, terms.peers) == ("vertical", "mortality risk", "insurer", ("lab",))
    assert (terms.dataset, terms.columns, terms.labels) == ("members", ("age", "sex"), ("died",))
    assert (terms.at_least, terms.epochs, terms.membership_learners) == (50, 4, ("lab",))
    assert _job().terms("lab").labels == ()


def test_a_passive_party_speaks_to_the_active_one_alone() -> None:
    job = _job(_with("parties", value=THREE))
    assert job.members == ("insurer", "lab", "clinic")
    assert job.links == (("insurer", "lab"), ("insurer", "clinic"))


def test_every_other_party_learns_who_is_shared_by_all() -> None:
    job = _job(_with("parties", value=THREE))
    for name in ("insurer", "lab", "clinic"):
        others = {party.name for party in job.parties} - {name}
        assert set(job.terms(name).membership_learners) == set(job.terms(name).peers) == others


# --- the forms, of every kind ----------------------------------------------------------------------------------------


def _fields(model: type[Job]) -> list[tuple[str, dict[str, Any]]]:
    schema = model.model_json_schema()
    inner = schema.get("$defs", {})
    models = {model.__name__: schema, **inner}
    return [
        (f"{of}.{name}", {**inner.get(field.get("$ref", "").rpartition("/")[2], {}), **field})
        for of, content in models.items()
        for name, field in content.get("properties", {}).items()
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_form_has_a_title_and_a_description_of_its_own(kind: Any) -> None:
    model = room(kind, "job").JOB
    fields = _fields(model)
    assert len(fields) > 20
    for name, field in fields:
        assert field.get("title"), name
        assert field.get("description", "").endswith((".", ")")), name
    assert model.model_json_schema()["title"] == f"{kind.capitalize()} job"


@pytest.mark.parametrize("kind", KINDS)
def test_no_form_has_a_discriminator_which_prefect_cannot_show(kind: Any) -> None:
    assert "discriminator" not in json.dumps(room(kind, "job").JOB.model_json_schema())


def test_every_example_is_valid() -> None:
    examples = {name: field["examples"][0] for name, field in _fields(VerticalJob) if "examples" in field}
    assert {"VerticalJob.name", "VerticalJob.purpose", "PartyInJob.name", "Align.passes"} <= set(examples)
    for name, example in examples.items():
        model, field = name.split(".")
        path = {"VerticalJob": (field,), "PartyInJob": ("parties", 1, field), "Align": ("align", field)}[model]
        assert _job(_with(*path, value=example))


def test_the_examples_of_the_repository_are_jobs() -> None:
    files = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    assert files
    for path in files:
        assert load_job(path).digest()
