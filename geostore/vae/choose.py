"""Which codec a partition gets: a base, a base with a delta, its own network or none, by bytes over its dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geostore.codec import Effort, Progress, Series
from geostore.collection import Policy
from geostore.vae import sizing
from geostore.vae.base import Base
from geostore.vae.borrow import borrow_codec
from geostore.vae.codec import VaeCodec
from geostore.vae.fit import fit_codec

DELTA_BYTES = 1100  # of a whole delta
DELTA_SAVES = 0.08  # of the embeddings' bytes, expected of a whole delta before it is fitted
OWN_SAVES = 0.2  # of the embeddings' bytes, expected of an own network before it is fitted
_SAMPLE_DATES = 6  # rasters encoded to compare two codecs
_LONG = 24  # dates from which a series is long: its embedding has something to learn
_PREFERENCE = 0.4  # in a long series, going without a network must take less than this share of its bytes


@dataclass(frozen=True)
class Candidate:
    """A codec and what the series is expected to take with it.

    Attributes:
        codec: fitted.
        payloads: bytes of all embeddings, from a sample.
        lent: bytes of a network others use too, as far as they count against this series.
    """

    codec: VaeCodec
    payloads: float
    lent: float = 0.0

    @property
    def total(self) -> float:
        """Embeddings, the codec, and its part of a network that it borrows."""
        return self.payloads + len(self.codec.to_bytes()) + self.lent

    @classmethod
    def of(cls, codec: VaeCodec, series: Series, effort: Effort) -> Candidate:
        """Encode a few rasters."""
        dates = np.flatnonzero(series.valid.any(axis=(1, 2)))
        sample = dates[np.linspace(0, len(dates) - 1, min(_SAMPLE_DATES, len(dates))).round().astype(int)]
        sizes = [len(codec.encode(series.pixels[t], series.valid[t]).payload) for t in sample]
        lent = 0.0 if codec.borrowed is None else effort.network_share * len(codec.borrowed.base.data)
        return cls(codec, float(np.mean(sizes)) * len(dates) if sizes else 0.0, lent)


def choose_codec(
    series: Series,
    *,
    policy: Policy,
    effort: Effort,
    progress: Progress,
    parent: VaeCodec | None = None,
    held: Sequence[Base] = (),
) -> VaeCodec:
    """The codec that keeps `policy` at the fewest bytes over the series, without fitting what cannot pay.

    With no steps of effort nothing is fitted where a base takes the bands: the place is stored at once, and a later
    fit may put it on a delta or a network of its own.
    """
    bare = borrow_codec(series, policy=policy, effort=effort, progress=progress, held=held)
    if bare is None:
        return fit_codec(series, "grid", policy=policy, effort=effort, progress=progress, parent=parent)
    best = Candidate.of(bare, series, effort)
    if effort.steps and DELTA_SAVES * best.payloads > DELTA_BYTES:
        moved = borrow_codec(series, policy=policy, effort=effort, progress=progress, delta="whole", held=held)
        assert moved is not None
        best = min(best, Candidate.of(moved, series, effort), key=lambda c: c.total)
    if effort.steps and OWN_SAVES * best.payloads + best.lent > sizing.parameters(series) * sizing.BYTES_PER_PARAMETER:
        own = _own(series, policy, effort, progress, parent)
        best = min(best, Candidate.of(own, series, effort), key=lambda c: c.total)
    still = fit_codec(series, "grid", policy=policy, effort=effort, progress=progress, plan=sizing.NO_NETWORK)
    without = Candidate.of(still, series, effort)
    share = _PREFERENCE if len(series) >= _LONG else 1.0
    return without.codec if without.total < share * best.total else best.codec


def _own(series: Series, policy: Policy, effort: Effort, progress: Progress, parent: VaeCodec | None) -> VaeCodec:
    lender = parent if parent is not None and parent.borrowed is None else None
    plan = sizing.network_plan(series)
    return fit_codec(series, "grid", policy=policy, effort=effort, progress=progress, parent=lender, plan=plan)
