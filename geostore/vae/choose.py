"""Which codec a partition gets: a base, a base with a delta, its own network or none, by bytes over its dates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from geostore.classical.fit import coded_bytes
from geostore.codec import Effort, Progress, RawCodec, Series
from geostore.collection import Policy
from geostore.fit_trace import FitTrace
from geostore.lossless import SMALL
from geostore.vae import sizing
from geostore.vae.base import Base
from geostore.vae.borrow import borrow_codec
from geostore.vae.codec import VaeCodec
from geostore.vae.fit import fit_codec

DELTA_BYTES = 1100  # of a whole delta
DELTA_SAVES = 0.08  # of the embeddings' bytes, expected of a whole delta before it is fitted
OWN_SAVES = 0.2  # of the embeddings' bytes, expected of an own network before it is fitted
_LEAVES = 0.6  # of the embeddings' bytes on a base, at least, whatever is saved on them: 0.74 is the least seen
_OWN_WEIGHTS = 0.8  # of an own network's foreseen bytes, at least
_HOPELESS = 1.25  # times what a rival takes, expected of the best codec: as much as estimates were found to err, twice
_SAMPLE_DATES = 6  # rasters encoded to compare two codecs


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
        """Encode a few rasters, together: that takes a third of the time of one by one."""
        dates = series.usable
        at = dates[np.linspace(0, len(dates) - 1, min(_SAMPLE_DATES, len(dates))).round().astype(int)]
        few = replace(series, pixels=series.pixels[at], valid=series.valid[at], times_us=series.times_us[at])
        mean = coded_bytes(codec.encode_series(few)) / max(1, len(at))
        return cls(codec, mean * len(dates), _lent(codec, effort))


def _lent(codec: VaeCodec, effort: Effort) -> float:
    return 0.0 if codec.borrowed is None else effort.network_share * len(codec.borrowed.base.data)


def choose_codec(
    series: Series,
    *,
    policy: Policy,
    effort: Effort,
    progress: Progress,
    parent: VaeCodec | None = None,
    held: Sequence[Base] = (),
) -> VaeCodec | RawCodec:
    """The codec that keeps `policy` at the fewest bytes over the series, without fitting what cannot pay.

    With no steps of effort nothing is fitted where a base takes the bands: the place is stored at once, and a later
    fit may put it on a delta or a network of its own. Nothing is fitted either that would take more than
    `effort.bytes_max` whatever it saves, and where every codec is expected to, the lossless one comes back. A codec
    tells how the last fit went, though what was fitted may have been dropped.
    """
    bare = borrow_codec(series, policy=policy, effort=effort, progress=progress, held=held)
    if bare is None:
        return _without_base(series, policy, effort, progress, parent)
    still = fit_codec(series, "grid", policy=policy, effort=effort, progress=progress, plan=sizing.NO_NETWORK)
    if _rival(effort) <= min(len(still.to_bytes()), len(bare.to_bytes()) + _lent(bare, effort)):
        return _given_up(series, None)
    without, plain = Candidate.of(still, series, effort), Candidate.of(replace(bare, rounds=0), series, effort)
    if _rival(effort) < min(without.total / _HOPELESS, _least(plain), _least_own(series, policy)):
        return _given_up(series, None)
    best, last = Candidate.of(bare, series, effort), bare
    bar = min(_rival(effort), without.total / sizing.preference(series))
    if effort.steps and DELTA_SAVES * best.payloads > DELTA_BYTES and _least(best) + DELTA_BYTES < bar:
        moved = borrow_codec(series, policy=policy, effort=effort, progress=progress, delta="whole", held=held)
        assert moved is not None
        last, best = moved, min(best, Candidate.of(moved, series, effort), key=lambda c: c.total)
    saved = OWN_SAVES * best.payloads + best.lent
    if effort.steps and saved > _own_weights(series, policy) and _least_own(series, policy) < bar:
        own = _own(series, policy, effort, progress, parent)
        last, best = own.codec, min(best, own, key=lambda c: c.total)
    return _kept(without, best, last, series, effort)


def _without_base(
    series: Series, policy: Policy, effort: Effort, progress: Progress, parent: VaeCodec | None
) -> VaeCodec | RawCodec:
    """An own network where `sizing.plan` expects that one pays and encoding says so, or none."""
    still = fit_codec(series, "grid", policy=policy, effort=effort, progress=progress, plan=sizing.NO_NETWORK)
    without = Candidate.of(still, series, effort)
    if not sizing.plan(series, policy).channels or _least_own(series, policy) > _rival(effort):
        return _kept(without, without, still, series, effort)
    own = _own(series, policy, effort, progress, parent)
    return _kept(without, own, own.codec, series, effort)


def _own(series: Series, policy: Policy, effort: Effort, progress: Progress, parent: VaeCodec | None) -> Candidate:
    """A network of the size that the bytes foreseen of embeddings ask for; if these prove wrong, that of true ones too.

    Whichever of the two is smaller.
    """
    lender, bands = parent if parent is not None and parent.borrowed is None else None, len(series.bands)

    def fitted(plan: sizing.Plan) -> Candidate:
        codec = fit_codec(series, "grid", policy=policy, effort=effort, progress=progress, parent=lender, plan=plan)
        return Candidate.of(codec, series, effort)

    foreseen = sizing.foreseen_embeddings(series, policy)
    plan = sizing.network_plan(bands, foreseen.expected)
    found = fitted(plan)
    other = sizing.network_plan(bands, found.payloads)
    if other == plan or foreseen.low <= found.payloads <= foreseen.high:
        return found
    return min(found, fitted(other), key=lambda c: c.total)


def _rival(effort: Effort) -> float:
    return math.inf if effort.bytes_max is None else float(effort.bytes_max)


def _least(bare: Candidate) -> float:
    """Bytes that a base, a delta on it and the embeddings hardly fall below."""
    return bare.total - (1 - _LEAVES) * bare.payloads


def _own_weights(series: Series, policy: Policy) -> float:
    bands, foreseen = len(series.bands), sizing.foreseen_embeddings(series, policy)
    return sizing.weights_bytes(bands, sizing.network_plan(bands, foreseen.expected))


def _least_own(series: Series, policy: Policy) -> float:
    """Bytes that an own network and its embeddings hardly fall below."""
    payloads = sizing.foreseen_embeddings(series, policy).low
    return _OWN_WEIGHTS * _own_weights(series, policy) + sizing.static_bytes(series, policy) + payloads


def _kept(without: Candidate, best: Candidate, last: VaeCodec, series: Series, effort: Effort) -> VaeCodec | RawCodec:
    """Of a codec without a network and the best with one, which is kept; `last` is the one fitted last."""
    rival = _rival(effort)
    share = 1.0 if best.total > rival else sizing.preference(series)
    found = without if without.total < share * best.total else best
    dropped = None if last.trace is None else replace(last.trace, kept=False)
    if found.total > _HOPELESS * rival:
        return _given_up(series, dropped)
    return found.codec if found.codec.trace is not None else replace(found.codec, trace=dropped)


def _given_up(series: Series, trace: FitTrace | None) -> RawCodec:
    return RawCodec(series.bands, effort=SMALL, trace=trace)
