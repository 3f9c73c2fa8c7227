"""Ridge regression whose weights are drawn to equal ones, and how well it foretells what it was not fitted to.

References:
    Stone (1974), "Cross-validatory choice and assessment of statistical predictions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
_RIDGE = 3.0  # of the mean square of references, by which their weights are held


@dataclass(frozen=True)
class Regression:
    """What it needs of S parts of all values.

    Attributes:
        squares: (S, R, R) products of references.
        products: (S, R) of references and values.
        powers: (S,) of values.
    """

    squares: Doubles
    products: Doubles
    powers: Doubles

    @classmethod
    def of(cls, there: Doubles, values: Doubles, ends: Longs) -> Regression:
        """Of (R, N) references for (N,) values, in parts that end at (S,) `ends`."""
        parts = [slice(begin, end) for begin, end in zip((0, *ends[:-1]), ends, strict=True)]
        return cls(
            np.stack([there[:, part] @ there[:, part].T for part in parts]),
            np.stack([there[:, part] @ values[part] for part in parts]),
            np.array([values[part] @ values[part] for part in parts]),
        )

    def weights(self, without: int | None = None) -> Doubles:
        """(R,) those that all parts give, or all but one."""
        used = [part for part in range(len(self.powers)) if part != without]
        square, count = self.squares[used].sum(axis=0), self.squares.shape[1]
        equal = np.full(count, 1 / max(count, 1))
        held = square + (_RIDGE * np.trace(square) / max(count, 1) + 1) * np.eye(count)
        return np.asarray(equal + np.linalg.solve(held, self.products[used].sum(axis=0) - square @ equal))

    def missed(self) -> float:
        """The sum of squares of what is left of each part's values by the weights that the others give."""
        total = 0.0
        for part, power in enumerate(self.powers):
            weights = self.weights(part)
            total += power - 2 * weights @ self.products[part] + weights @ self.squares[part] @ weights
        return float(total)
