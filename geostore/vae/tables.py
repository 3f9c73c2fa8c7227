"""The entropy tables of a codec without a prior, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.vae.entropy import Table
from geostore.vae.quantize import STEPS
from geostore.vae.static import GAIN_LIMIT, LEVEL_LIMIT
from geostore.vae.stream import LATENT_LIMIT


@dataclass(frozen=True)
class Tables:
    """Entropy tables of a codec.

    Attributes:
        gains, levels: of every band's gain and level.
        latents: for each step, one per latent channel.
    """

    gains: Table
    levels: Table
    latents: tuple[tuple[Table, ...], ...]

    def to_array(self) -> npt.NDArray[np.uint16]:
        """(2 + steps * channels, 2) uint16: zero and ratio of every table."""
        rows = [self.gains, self.levels, *(t for step in self.latents for t in step)]
        return np.array([(t.zero, t.ratio) for t in rows], np.uint16)

    @classmethod
    def from_array(cls, rows: npt.NDArray[np.generic], channels: int) -> Tables:
        """The inverse of `to_array`."""
        pairs = [(int(zero), int(ratio)) for zero, ratio in rows.tolist()]
        latents = [Table(zero, ratio, LATENT_LIMIT) for zero, ratio in pairs[2:]]
        by_step = tuple(tuple(latents[i * channels : (i + 1) * channels]) for i in range(len(STEPS)))
        return cls(Table(*pairs[0], GAIN_LIMIT), Table(*pairs[1], LEVEL_LIMIT), by_step)
