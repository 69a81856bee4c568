"""The small-cell rule with complementary suppression: which counts may be told without giving others away.

A count below the floor, zero included, is never told (primary suppression). Then further counts are kept back until no
suppressed one can be computed back, nor narrowed down: given every count that is told, all equations between counts
(each margin is the sum of its cells, and a margin that stands in several tables is one count) and that counts are
whole numbers and not negative, each suppressed count must still be able to take values at least `floor` apart. Two
linear programs a cell judge that, and integer ones where those end between whole numbers: the "attacker's problem" of
Fischetti and Salazar 2000; see Hundepool et al. 2012, "Statistical Disclosure Control", chapter 4. Which count is kept
back next is chosen greedily: the smallest one in an equation that narrows an unprotected cell.

**What it holds against**: someone who has everything that is told and reckons with it. Not: someone who knows some of
the patients beforehand, or who asks several jobs with other floors, groups or patients and compares them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array

Key = Hashable
TOLERANCE = 1e-6
_NODES = 2000  # of an integer program's search; one that takes more counts as having found nothing
TOTAL: Key = frozenset()  # all patients: kept back last of all


@dataclass
class Counts:
    """Counts and the equations between them: that one count is the sum of others."""

    keys: dict[Key, int] = field(default_factory=dict)
    values: list[int] = field(default_factory=list)
    equations: list[tuple[int, ...]] = field(default_factory=list)  # the sum, then what adds up to it
    _seen: set[tuple[int, ...]] = field(default_factory=set)

    def add(self, key: Key, value: int) -> int:
        """Have a count; one with the same key is the same count."""
        place = self.keys.setdefault(key, len(self.values))
        if place == len(self.values):
            self.values.append(value)
        if self.values[place] != value:
            raise ValueError("two values for one count")
        return place

    def total(self, key: Key, parts: Iterable[Key]) -> None:
        """State that one count is the sum of others."""
        places = [self.keys[part] for part in parts]
        if self.values[self.keys[key]] != sum(self.values[place] for place in places):
            raise ValueError("a sum that is none")
        equation = (self.keys[key], *sorted(places))
        if equation not in self._seen:
            self._seen.add(equation)
            self.equations.append(equation)

    def told(self, floor: int) -> dict[Key, int | None]:
        """What may be told of each count: its value, or None. A floor of 1 keeps nothing back."""
        suppressed = suppressed_counts(self, floor) if floor > 1 else frozenset()
        return {key: None if place in suppressed else self.values[place] for key, place in self.keys.items()}


def suppressed_counts(counts: Counts, floor: int) -> frozenset[int]:
    """The places of all counts that have to be kept back."""
    return _Suppression(counts, floor).run()


class Programs:
    """Programs over one set of unknown numbers ≥ 0, with what earlier ones have shown.

    Every point that a program finds agrees with all that is told: it widens what is known of the possible values of
    **all** unknowns, not only of the one that was asked about. That saves most programs. `low` and `high` hold the
    least and the greatest value of each in any such point; with `whole`, points of whole numbers alone are counted.
    """

    def __init__(
        self,
        truth: NDArray[np.float64],
        equal: csr_array,
        equal_to: NDArray[np.float64],
        below: csr_array | None = None,
        below_to: NDArray[np.float64] | None = None,
        *,
        whole: bool,
    ) -> None:
        self._equal, self._equal_to, self._below, self._below_to = equal, equal_to, below, below_to
        self._whole = whole
        self.low, self.high = truth.copy(), truth.copy()
        self._asked: set[tuple[int, float]] = set()

    def widen(self, direction: NDArray[np.float64]) -> bool:
        """Look for the point that is farthest in a direction. False if there is no farthest one."""
        found = linprog(
            -direction,
            A_ub=self._below,
            b_ub=self._below_to,
            A_eq=self._equal if self._equal.shape[0] else None,
            b_eq=self._equal_to if self._equal.shape[0] else None,
            bounds=(0, None),
            method="highs",
        )
        if found.status == 3:
            return False
        point = found.x
        if self._whole and point is not None and np.abs(point - np.rint(point)).max() > TOLERANCE:
            constraint = LinearConstraint(self._equal, self._equal_to, self._equal_to)
            whole = {"integrality": np.ones(len(direction)), "bounds": Bounds(0, np.inf)}
            point = milp(-direction, constraints=constraint, options={"node_limit": _NODES}, **whole).x
        if point is not None:
            point = np.maximum(np.rint(point) if self._whole else point, 0.0)
            self.low, self.high = np.minimum(self.low, point), np.maximum(self.high, point)
        return True

    def is_wide(self, place: int, width: float) -> bool:
        """Whether an unknown can take values at least `width` apart."""
        for sign in (1.0, -1.0):
            if self.high[place] - self.low[place] >= width - TOLERANCE:
                return True
            if (place, sign) in self._asked:
                continue
            self._asked.add((place, sign))
            direction = np.zeros(len(self.low))
            direction[place] = sign
            if not self.widen(direction):
                self.high[place] = np.inf  # no equation bounds it
        return bool(self.high[place] - self.low[place] >= width - TOLERANCE)


class _Suppression:
    def __init__(self, counts: Counts, floor: int) -> None:
        self._values, self._equations, self._floor = counts.values, counts.equations, floor
        self._total = counts.keys.get(TOTAL, -1)
        self._suppressed = {place for place, value in enumerate(self._values) if value < floor}
        self._of: list[list[int]] = [[] for _ in self._values]  # the equations that a count stands in
        for number, equation in enumerate(self._equations):
            for place in equation:
                self._of[place].append(number)

    def run(self) -> frozenset[int]:
        self._suppress_obvious()
        protected: set[int] = set()
        while True:
            open_ones = sorted(self._suppressed - protected)
            if not open_ones:
                return frozenset(self._suppressed)
            for component in self._components(open_ones):
                self._protect(component, protected)

    def _suppress_obvious(self) -> None:
        """What no program is needed for: equations with one suppressed count, or whose suppressed parts are few."""
        changed = True
        while changed:
            changed = False
            for equation in self._equations:
                hidden = [place for place in equation if place in self._suppressed]
                few = equation[0] not in self._suppressed and (
                    sum(self._values[place] for place in hidden) < self._floor
                )
                if hidden and (len(hidden) == 1 or few):
                    changed |= self._suppress_smallest([equation])

    def _suppress_smallest(self, equations: Iterable[Sequence[int]]) -> bool:
        """Suppress the smallest released count of some equations; False if there is none."""
        released = {place for equation in equations for place in equation} - self._suppressed
        if not released:
            return False
        self._suppressed.add(min(released, key=lambda place: (place == self._total, self._values[place], place)))
        return True

    def _components(self, start: Sequence[int]) -> list[list[int]]:
        """The suppressed counts that hang together, by equations, with those of `start`."""
        seen: set[int] = set()
        found = []
        for first in start:
            if first in seen:
                continue
            seen.add(first)
            component, pending = [], [first]
            while pending:
                place = pending.pop()
                component.append(place)
                for number in self._of[place]:
                    new = [
                        other for other in self._equations[number] if other in self._suppressed and other not in seen
                    ]
                    seen.update(new)
                    pending += new
            found.append(sorted(component))
        return found

    def _protect(self, component: list[int], protected: set[int]) -> None:
        """Judge the counts of a component; suppress a neighbour of each that is too narrow. Widths only ever grow."""
        programs, at = self._programs(component), {place: index for index, place in enumerate(component)}
        before = len(self._suppressed)
        for place in component:
            if place in protected or programs.is_wide(at[place], self._floor):
                protected.add(place)
                continue
            mine = [self._equations[number] for number in self._of[place]]
            if len(self._suppressed) > before and any(
                other in self._suppressed and other not in at for equation in mine for other in equation
            ):
                continue  # what was suppressed a moment ago may protect it too
            if not self._suppress_beside(mine, component):
                protected.add(place)  # nothing that is told touches it

    def _suppress_beside(self, mine: Sequence[Sequence[int]], component: Sequence[int]) -> bool:
        """Suppress the smallest released count: of the equation with the fewest unknowns, or of the whole component."""
        with_released = [one for one in mine if any(place not in self._suppressed for place in one)]
        if with_released:
            unknown = [sum(place in self._suppressed for place in one) for one in with_released]
            return self._suppress_smallest([with_released[unknown.index(min(unknown))]])
        return self._suppress_smallest(self._equations[number] for place in component for number in self._of[place])

    def _programs(self, component: Sequence[int]) -> Programs:
        at = {place: index for index, place in enumerate(component)}
        numbers = sorted({number for place in component for number in self._of[place]})
        rows, columns, signs, known = [], [], [], np.zeros(len(numbers))
        for row, number in enumerate(numbers):
            for position, place in enumerate(self._equations[number]):
                sign = -1.0 if position == 0 else 1.0
                if place in at:
                    rows.append(row)
                    columns.append(at[place])
                    signs.append(sign)
                else:
                    known[row] -= sign * self._values[place]
        equal = csr_array((signs, (rows, columns)), shape=(len(numbers), len(component)))
        truth = np.array([float(self._values[place]) for place in component])
        return Programs(truth, equal, known, whole=True)
