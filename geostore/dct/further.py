"""One more date that a date is expected from: the one that explains most of what its usual references leave.

For the encoder alone, which tells its choice; so floating point does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geostore.dct.shift import Shorts, move

Longs = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
_COMPONENTS = 2
_BROAD = 9  # pixels, of what lower frequencies tell without any date


@dataclass
class Further:
    """What is decoded, laid on one another, without its broad features.

    Attributes:
        details: by date, (pixels of some components,).
    """

    details: dict[int, Floats] = field(default_factory=dict)

    def add(self, date: int, planes: Shorts, at: Longs) -> None:
        """Take in a decoded date, (K, H, W), that lies off by `at`."""
        self.details[date] = _detail(move(planes[:_COMPONENTS], -at))

    def best(self, planes: Doubles, at: Longs, usual: Sequence[int], standing: Doubles) -> int | None:
        """Of the dates not among the `usual` references the best one more; None where all are."""
        others = sorted(set(self.details) - set(usual))
        if not others:
            return None
        known = [self.details[d] for d in usual if d in self.details]
        base, _ = np.linalg.qr(np.stack([*known, _detail(standing[:_COMPONENTS])]).T)
        wanted = _detail(move(np.rint(planes[:_COMPONENTS]), -at))
        left = wanted - base @ (base.T @ wanted)
        rows = np.stack([self.details[d] for d in others])
        own = np.square(rows).sum(axis=1) - np.square(rows @ base).sum(axis=1)
        gain = np.square(rows @ left) / np.maximum(own, 1e-3)
        return others[int(gain.argmax())]


def _detail(planes: Doubles) -> Floats:
    fine = planes - ndimage.uniform_filter(planes, (0, _BROAD, _BROAD))
    return np.asarray(fine.ravel(), np.float32)
