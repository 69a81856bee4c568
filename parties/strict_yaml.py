"""YAML files that strangers may have written, read without YAML's surprises."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import InputError, plain_problem

MOST_NBYTES = 1 << 20  # of a file: a roster of about 1,000 members
_MOST_LEVELS = 40
_MOST_DIGITS = 40
_MOST_NODES = 30_000  # a roster of 1,000 members has half of them; each costs half a kilobyte

B = TypeVar("B", bound=BaseModel)


def read_part(kind: type[B], path: Path) -> B:
    """A YAML file with the fields of `kind`: no aliases, no key twice, at most 1 MiB.

    Raises `InputError` ``roster.missing`` and ``roster.invalid``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_NBYTES + 1)
    except OSError as failure:
        raise InputError("roster.missing", file=path.name, detail=str(failure)) from failure
    if len(content) > MOST_NBYTES:
        raise InputError("roster.invalid", where=path.name, field="the whole file", problem="it is larger than 1 MiB")
    try:
        found = yaml.load(content, _Loader)  # noqa: S506 - a SafeLoader, and stricter
    except (yaml.YAMLError, ValueError, RecursionError) as failure:
        line = getattr(getattr(failure, "problem_mark", None), "line", 0) + 1
        problem = failure.problem if isinstance(failure, _RefusedError) else "this is not YAML"
        raise InputError(
            "roster.invalid", where=path.name, field=f"line {line}", problem=str(problem), detail=str(failure)
        ) from failure
    return part_of(kind, found, where=path.name)


def part_of(kind: type[B], content: Any, where: str = "") -> B:
    """Content that somebody gave, checked. Raises `InputError` ``roster.invalid``."""
    try:
        return kind.model_validate(content)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        # A name in a file may be anything, a terminal's control characters too.
        field = ascii(".".join(map(str, first["loc"])) or "the whole file")[1:-1][:100]
        problem = plain_problem(first)
    # Outside of the handler: the cause would hold what was given.
    raise InputError("roster.invalid", where=where, field=field, problem=problem)


def yaml_text(content: dict[str, Any]) -> str:
    """YAML as people read it: in the order given, and a certificate as a block of lines."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=200)


# --- below: YAML without its surprises -------------------------------------------------------------------------------

_Node = yaml.MappingNode | yaml.SequenceNode | yaml.ScalarNode
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


def _without_timestamps(resolvers: dict[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
    return {first: [pair for pair in pairs if pair[0] != _TIMESTAMP] for first, pairs in resolvers.items()}


class _RefusedError(yaml.MarkedYAMLError):
    """YAML that is well formed, and not taken all the same."""


class BoundedLoader(yaml.SafeLoader):
    """Reads YAML in time and memory that its length bounds, and raises `yaml.YAMLError` or `ValueError` if anything."""

    _level = 0
    _count = 0  # of nodes, with those that aliases stand for

    def compose_document(self) -> Any:
        """A whole document."""
        self._weights: dict[int, int] = {}  # of each node that is whole: how many it counts for
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node of the file, and what is in it."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:  # with a wrong content, any kind of exception
            raise _RefusedError(problem="tags are not taken", problem_mark=event.start_mark)
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise _RefusedError(problem="it is nested too deeply", problem_mark=event.start_mark)
        before = self._count
        node: Any = super().compose_node(parent, index)
        self._level -= 1
        # A few aliases of aliases can fill any memory; one within itself weighs infinitely.
        self._count += self._weights.get(id(node), _MOST_NODES) if isinstance(event, yaml.AliasEvent) else 1
        self._weights.setdefault(id(node), self._count - before)
        if self._count > _MOST_NODES:
            raise _RefusedError(problem="it is too much", problem_mark=event.start_mark)
        if node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:  # 1:1:1:1:..., to the base of 60, takes hours
            raise _RefusedError(problem="a number is too long", problem_mark=event.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping. Of one name twice, YAML's own loader takes the last; whoever reads the file may see the first."""
        node: Any = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise _RefusedError(problem="a name stands here twice", problem_mark=key.start_mark)
                names.add(key.value)
        return node


class _Loader(BoundedLoader):
    yaml_implicit_resolvers = _without_timestamps(yaml.SafeLoader.yaml_implicit_resolvers)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:
            raise _RefusedError(problem="anchors and aliases are not taken", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if key.value == "<<":  # which would bring in names that others may be like
                raise _RefusedError(problem="nothing is merged", problem_mark=key.start_mark)
        return node


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _without_timestamps(yaml.SafeDumper.yaml_implicit_resolvers)


def _as_lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _as_lines)
