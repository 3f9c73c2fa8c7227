"""How the loss terms of a fit went, thinned to the few points that a store keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geostore.errors import Corrupt

POINTS = 16  # that are kept of a fit
VALUES = 64  # that are kept of all terms together: a fit that looks at many indices keeps fewer points of each


@dataclass(frozen=True)
class FitTrace:
    """The smoothed loss terms of one fit over its steps.

    Attributes:
        steps: (P,) optimiser steps taken, ascending.
        terms: (P,) values of each term by its name: "rate" in bits a pixel, "mse" on n1, "index_<name>" the mean
            absolute error of a spectral index.
        targets: the error that a term was steered to; a term that is not here was only looked at.
        kept: False if what was fitted is not what its place is decoded with; no part of the text.
    """

    steps: tuple[int, ...]
    terms: Mapping[str, tuple[float, ...]]
    targets: Mapping[str, float]
    kept: bool = True

    @classmethod
    def of(cls, seen: Sequence[tuple[int, Mapping[str, float]]], targets: Mapping[str, float]) -> FitTrace | None:
        """At most POINTS of (step, terms), the first and the last among them; None if nothing was seen."""
        if not seen:
            return None
        points = min(POINTS, max(2, VALUES // max(1, len(seen[0][1]))))
        chosen = [seen[i] for i in np.unique(np.linspace(0, len(seen) - 1, points).round().astype(int))]
        names = [name for name in chosen[0][1] if all(name in terms for _, terms in chosen)]
        return cls(
            steps=tuple(step for step, _ in chosen),
            terms={name: tuple(terms[name] for _, terms in chosen) for name in names},
            targets=dict(targets),
        )

    def to_text(self) -> str:
        """Compact text, three digits of each value: "steps:20 40;rate:1.2 0.9;mse:0.001 0.0004;mse<0.0004".

        >>> FitTrace((20, 40), {"mse": (0.00123456, 4e-4)}, {"mse": 4e-4}).to_text()
        'steps:20 40;mse:0.00123 0.0004;mse<0.0004'
        """
        rows = [f"steps:{' '.join(map(str, self.steps))}"]
        rows += [f"{name}:{' '.join(f'{v:.3g}' for v in values)}" for name, values in self.terms.items()]
        rows += [f"{name}<{value:.6g}" for name, value in self.targets.items()]
        return ";".join(rows)

    @classmethod
    def from_text(cls, text: str) -> FitTrace:
        """The inverse of `to_text`.

        Raises:
            Corrupt: it is no such text.
        """
        try:
            said = dict(row.split(":") for row in text.split(";") if "<" not in row)
            targets = dict(row.split("<") for row in text.split(";") if "<" in row)
            steps = tuple(map(int, said.pop("steps").split()))
            terms = {name: tuple(map(float, values.split())) for name, values in said.items()}
            trace = cls(steps, terms, {name: float(value) for name, value in targets.items()})
        except (KeyError, ValueError) as error:
            raise Corrupt(f"loss terms {text[:60]!r} do not read: {error}; fit the place again") from error
        if any(len(values) != len(steps) for values in trace.terms.values()):
            raise Corrupt(f"loss terms {text[:60]!r} have rows of unequal length; fit the place again")
        return trace
