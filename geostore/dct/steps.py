"""The quantiser's steps, by their numbers: eight an octave."""

from __future__ import annotations

from geostore.classical.quality import Dial

STEP_MAX = 127
STEPS = Dial(0, STEP_MAX, 1, slope=0.14, near=0.95)  # error goes with about the 1.6th power of a step
_EIGHTHS = (16, 17, 19, 21, 23, 25, 27, 29)  # 16 * 2^(n / 8)


def step_of(number: int) -> int:
    """The quantiser's step of that number, in 1/16 of a component's level."""
    return _EIGHTHS[number % 8] << (number // 8)
