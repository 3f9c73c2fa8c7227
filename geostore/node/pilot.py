"""pilot: a fit in small, to know what one in full would take."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from geostore.codec import Effort, Families, Series, quiet
from geostore.collection import Policy
from geostore.node.encode import fit_series, payload_bytes
from geostore.vae.sizing import static_bytes

SIDE_MAX = 160  # pixels of the middle that is fitted
RASTERS_MAX = 150
_WARM = (32, 4)  # pixels a side and rasters of a fit that is not timed
_TRAINING = "fit"  # what a codec says while it trains, which takes time by steps; the rest takes it by values


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What the fit of a part of one series took.

    Attributes:
        series: the part. policy: what the fit kept.
        lossless: True if the lossless codec was smaller; the other figures are then its own.
        bytes_payloads: of all rasters. bytes_lossless: of the same in the lossless codec.
        bytes_codec: of the codec, networks it shares with other partitions apart.
        networks: bytes of each of those by digest.
        seconds_training: at the steps asked for. seconds_values: all else.
    """

    series: Series
    policy: Policy
    lossless: bool
    bytes_payloads: int
    bytes_lossless: int
    bytes_codec: int
    networks: dict[str, int]
    seconds_training: float
    seconds_values: float

    def scaled(self, pixels: float, dates: float, more_steps: float) -> Scaled:
        """To `pixels` a raster, `dates` a partition and so many times the steps.

        A codec's static image grows with the pixels, the rest of it does not.
        """
        count, _, height, width = self.series.pixels.shape
        larger = pixels / (height * width)
        static = min(static_bytes(self.series, self.policy), float(self.bytes_codec))
        seconds = self.seconds_training * more_steps + self.seconds_values * larger * dates / count
        payloads = self.bytes_payloads / max(self.bytes_lossless, 1)
        return Scaled(payloads, self.bytes_codec - static + static * larger, seconds)


@dataclass(frozen=True)
class Scaled:
    """A pilot brought to the size of a partition: payloads as a share of lossless, codec bytes, seconds."""

    payloads: float
    codec: float
    seconds: float


def pilot(series: Series, policy: Policy, *, steps: int, partitions: int = 1, seed: int = 0) -> Pilot:
    """Fit the middle of `series` as a fit would, with fewer steps, and count what is stored.

    `partitions` are alike, and would share a network.
    """
    part = _part(series, SIDE_MAX, RASTERS_MAX)
    effort = Effort(steps=steps, seed=seed, device="cpu", network_share=1 / partitions)
    warm = _part(series, *_WARM)
    fit_series(policy.codec, None, warm, policy, replace(effort, steps=1), quiet)  # libraries load, kernels compile
    clock = _Clock()
    fitted = fit_series(policy.codec, None, part, policy, effort, clock.tell)
    clock.tell("", 1.0)
    networks = Families.installed([policy.codec, fitted.family]).networks(fitted.family, fitted.codec)
    training = clock.seconds.get(_TRAINING, 0.0)
    return Pilot(
        series=part,
        policy=policy,
        lossless=fitted.family == "raw",
        bytes_payloads=payload_bytes(fitted.rasters),
        bytes_lossless=sum(r.bytes_lossless for r in fitted.rasters),
        bytes_codec=len(fitted.codec),
        networks={digest: len(data) for digest, data in networks.items()},
        seconds_training=training,
        seconds_values=sum(clock.seconds.values()) - training,
    )


def _part(series: Series, side: int, rasters: int) -> Series:
    """The middle, `side` pixels at most, of `rasters` of them, evenly spread."""
    height, width = series.pixels.shape[2:]
    rows, columns = (slice((n - min(n, side)) // 2, (n - min(n, side)) // 2 + min(n, side)) for n in (height, width))
    at = np.unique(np.linspace(0, len(series) - 1, min(len(series), rasters)).round().astype(int))
    return replace(
        series,
        pixels=np.ascontiguousarray(series.pixels[at][..., rows, columns]),
        valid=np.ascontiguousarray(series.valid[at][:, rows, columns]),
        times_us=series.times_us[at],
    )


class _Clock:
    """Seconds of this process by what a fit says it does: those of a worker with a core of its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.process_time()

    def tell(self, what: str, share: float) -> None:
        now = time.process_time()
        self.seconds[what] += now - self._last
        self._last = now
