"""A group of dates as one stream and back: their order, shifts and steps, then coefficients, all by the range coder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.coding.rangecoder import (
    Bytes,
    decode_bit,
    decode_one,
    encode_bit,
    encode_one,
    finish,
    start_decoder,
    start_encoder,
)
from geostore.coding.rangecoder import tables as laplace
from geostore.compiled import compiled
from geostore.dct.along import along
from geostore.dct.blocks import CLASSES, Blocks, Shorts
from geostore.dct.coefficients import tables
from geostore.dct.contexts import spreads
from geostore.dct.date import Room, code_date
from geostore.dct.further import Further
from geostore.dct.learnt import Learnt
from geostore.dct.order import REFERENCES, STANDING, Turn, turns
from geostore.dct.predict import usual
from geostore.dct.shift import MOST, move
from geostore.dct.steps import STEP_MAX, STEPS, step_of
from geostore.dct.target import Guess, Target
from geostore.errors import Corrupt
from geostore.raster import Mask

Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
DATES_MAX = 65535
_LEVELS = (-8, -5, -3, -1, 1, 1)  # steps from the base, by a date's level: what others lean on is finer
_SHIFT_SCALE, _STEP_SCALE = 58, 28  # of Laplace tables: about 5 parts of a pixel; a third of a step
_STANDING_MEMORY = 25  # dates the standing image is the mean of, at most
_BYTES_PER_VALUE = 8
_MARGIN = 1 << 10
_AT = 4  # in the state of a range coder: where it writes
_EVEN = 1 << 15  # odds of a bit of which nothing is known

Keep = Callable[[int, Shorts], float]  # (date, (K, H, W) planes decoded) -> the share of a bound it uses up


@dataclass
class Past:
    """What is decoded so far.

    Attributes:
        planes: by date, (K, padded).
        shifts: by date, (2,).
        standing: (K, padded), the mean of dates laid on one another.
        count: dates in it.
    """

    planes: dict[int, Shorts] = field(default_factory=dict)
    shifts: dict[int, Longs] = field(default_factory=dict)
    standing: Doubles = field(default_factory=lambda: np.zeros((1, 1, 1)))
    count: int = 0

    def seen(self, turn: Turn, at: Longs, room: Doubles | None = None) -> Iterator[Doubles]:
        """The references of a date that lies off by `at`, moved to where it lies; each in `room` if there is such."""
        for reference in turn.references:
            if reference == STANDING:
                yield move(self.standing, at, room)
            else:
                yield move(self.planes[reference], at - self.shifts[reference], room)

    def add(self, date: int, planes: Shorts, at: Longs) -> None:
        """Take in one more date."""
        self.planes[date], self.shifts[date] = planes, at
        moved = move(planes, -at)
        self.count = min(self.count + 1, _STANDING_MEMORY)
        if self.count == 1:
            self.standing = moved
        else:
            _bring_nearer(self.standing.reshape(-1), moved.reshape(-1), self.count)


@compiled(lean=True)
def _bring_nearer(mean: Doubles, planes: Doubles, count: int) -> None:
    """Make a mean one of `count` planes, the newest among them; whole numbers."""
    half = float(count // 2)
    for i in range(len(mean)):
        mean[i] += np.floor((planes[i] - mean[i] + half) / count)


class Mark(NamedTuple):
    """A place in the writing of a stream: the range coder's state, what models know, bytes before it."""

    state: Longs
    learnt: Learnt
    written: Bytes


@dataclass
class Coder:
    """One group's stream, written or read date by date.

    Attributes:
        blocks, components: of every date.
        data, state: bytes and range coder.
        base: number of the step that dates' own are near.
        learnt: what the models know.
        past: what is decoded.
        room: see `Blocks.room`. moved: (K, padded) for what is moved.
        seen: (R, K, blocks, h * w) room for coefficients of a date's references.
        lately: number of the step that the date before needed; STEP_MAX if its usual one was fine enough.
    """

    blocks: Blocks
    components: int
    data: Bytes
    state: Longs
    base: int
    learnt: Learnt
    past: Past
    room: Doubles
    moved: Doubles
    seen: Floats
    lately: int = STEP_MAX

    @classmethod
    def of(cls, blocks: Blocks, components: int, data: Bytes, state: Longs, base: int) -> Coder:
        """At the beginning of a stream."""
        (h, w), rows, columns = blocks.side, blocks.rows, blocks.columns
        learnt = Learnt.nothing((components, rows, columns, h, w))
        room, moved = blocks.room(components), np.empty((components, *blocks.padded))
        seen = np.empty((REFERENCES + 1, components, rows * columns, h * w), np.float32)
        return cls(blocks, components, data, state, base, learnt, Past(), room, moved, seen)

    def mark(self, since: Mark | None = None) -> Mark:
        """Where it is, with what was written since that one; nothing may be written before one goes back to some."""
        begin = self.state[_AT] if since is None else since.state[_AT]
        return Mark(self.state, self.learnt, self.data[begin : self.state[_AT]].copy())

    def go_back(self, mark: Mark) -> None:
        """Be where it was."""
        self.state, self.learnt = mark.state.copy(), mark.learnt.copy()
        end = self.state[_AT]
        self.data[end - len(mark.written) : end] = mark.written

    def usual_step(self, turn: Turn) -> int:
        """The number of the step that a date of that place in the order has unless it needs another."""
        return min(max(self.base + _LEVELS[min(turn.level, len(_LEVELS) - 1)], 0), STEP_MAX)

    def further(self, turn: Turn, also: int | None, *, encode: bool) -> Turn:
        """The turn with one more reference, `also` or the one read; by its number among the dates left, 0 for none."""
        left = sorted(set(self.past.planes) - set(turn.references))
        number = 1 + left.index(also) if encode and also is not None else 0
        for bit in reversed(range(len(left).bit_length())):
            if encode:
                encode_bit(self.data, self.state, number >> bit & 1, _EVEN)
            else:
                number |= decode_bit(self.data, self.state, _EVEN) << bit
        return replace(turn, references=(*turn.references, *left[number - 1 : number])) if number else turn

    def references(self, turn: Turn, at: Longs) -> Floats:
        """(R, K, blocks, h * w) coefficients of a date's references, in the order of `Blocks.scan`.

        They are there until those of another date are.
        """
        seen = self.seen[: len(turn.references)]
        for planes, to in zip(self.past.seen(turn, at, self.moved), seen, strict=True):
            self.blocks.ordered(planes, to, self.room)
        return seen

    def coefficients(self, planes: Doubles) -> Floats:
        """(K, blocks, h * w) coefficients of (K, padded) planes to be told, in the order of `Blocks.scan`."""
        wanted = np.empty(self.seen.shape[1:], np.float32)
        self.blocks.ordered(np.rint(planes), wanted, self.room)
        return wanted

    def told(self, turn: Turn, step: int, at: Longs) -> tuple[int, Longs]:
        """Step and shift as they are written, or read in their place when `step` is negative."""
        expected, scales = (self.usual_step(turn), 0, 0), (_STEP_SCALE, _SHIFT_SCALE, _SHIFT_SCALE)
        values = [step, *at.tolist()]
        for i, (near, scale) in enumerate(zip(expected, scales, strict=True)):
            if i and not turn.references:
                values[i] = 0  # the first has nothing to lie beside
            elif step >= 0:
                encode_one(self.data, self.state, laplace(), values[i], 16 * near, scale)
            else:
                values[i] = decode_one(self.data, self.state, laplace(), 16 * near, scale)
        most = (STEP_MAX, MOST, MOST)
        held = [min(max(v, -m if i else 0), m) for i, (v, m) in enumerate(zip(values, most, strict=True))]
        return held[0], np.array(held[1:], np.int64)

    def code(self, turn: Turn, wanted: Floats, seen: Floats, step: int, *, encode: bool) -> Shorts:
        """(K, padded) planes as they decode, of one date; the past is not changed, models and stream are.

        Args:
            turn: its place in the order.
            wanted: (K, blocks, h * w) coefficients to be told; (0, blocks, h * w) when decoding.
            seen: (R, K, blocks, h * w), those of its references.
            step: number of its quantiser's step.
            encode: whether to write or to read.
        """
        scan = self.blocks.scan
        out = np.empty(seen.shape[1:], np.int64)
        ends = np.searchsorted(scan[:, 2], np.arange(CLASSES + 1))
        code_date(
            self.data,
            self.state,
            wanted,
            seen,
            spreads(seen, self.blocks.within, self.blocks.side),
            usual(turn.references, STANDING),
            scan,
            ends,
            turn.level,
            step_of(step),
            self.blocks.beside,
            self.learnt,
            tables(),
            Room.of(len(seen), len(scan)),
            out,
            encode,
        )
        return self.blocks.planes(out, self.room)


def encode_group(
    planes: Doubles,
    blocks: Blocks,
    shifts: Longs,
    base: int,
    keep: Keep | None = None,
    known: Mask | None = None,
    begin: Longs | None = None,
) -> tuple[bytes, list[Shorts]]:
    """(T, K, height, width) planes in 1/16 of a level as a stream; and what they decode to, (K, height, width) each.

    Args:
        planes: at most DATES_MAX dates.
        blocks: how they are cut.
        shifts: (T, 2) where the dates lie.
        base: number of the step.
        keep: asked of every decoded date; one that uses up more than 1 of its bounds is coded finer until it does not.
        known: (T, height, width) True where values matter, everywhere if None; elsewhere they may decode to anything.
        begin: (T,) number of the step that tries of each date begin at, STEP_MAX where not known; set to what it was.
    """
    known = np.ones((len(planes), blocks.height, blocks.width), np.bool_) if known is None else known
    begin = np.full(len(planes), STEP_MAX) if begin is None else begin
    padded = blocks.pad(planes)
    data = np.zeros(_MARGIN + _BYTES_PER_VALUE * padded.size, np.uint8)
    coder = Coder.of(blocks, planes.shape[1], data, start_encoder(), base)
    shifts = shifts - shifts[0]  # the first lies where it lies
    further, beside = Further(), None if known.all() else blocks.pad(along(planes, known))
    for turn in turns(len(planes)):
        at, line = np.clip(shifts[turn.date], -MOST, MOST), None if beside is None else beside[turn.date]
        target = Target(padded[turn.date], known[turn.date], at, line)
        begin[turn.date] = _encode_date(coder, further, turn, target, keep, int(begin[turn.date]))
    size = finish(data, coder.state)
    inner = [coder.past.planes[t][:, : blocks.height, : blocks.width] for t in range(len(planes))]
    return len(planes).to_bytes(2, "little") + bytes([base]) + data[1 : 1 + size].tobytes(), inner


def _encode_date(coder: Coder, further: Further, turn: Turn, target: Target, keep: Keep | None, begin: int) -> int:
    """Code a date as coarsely as keeps its bound, no coarser than usual; tries begin at `begin`, or where lately.

    The number of its step, STEP_MAX for the usual one.
    """
    also = further.best(target.planes, target.at, turn.references, coder.past.standing)
    most, before, guess = coder.usual_step(turn), coder.mark(), target.guess(coder.past.seen(turn, target.at))
    seen: Floats | None = None
    best: tuple[int, Shorts, Mark] | None = None

    def used(number: float) -> float:
        nonlocal guess, seen, best
        step = int(number)
        wanted = coder.coefficients(target.filled(guess, coder.blocks, step).planes)
        coder.go_back(before)
        coder.told(turn, step, target.at)
        whole = coder.further(turn, also, encode=True)
        seen = coder.references(whole, target.at) if seen is None else seen
        decoded = coder.code(whole, wanted, seen, step, encode=True)
        share = 0.0 if keep is None else keep(turn.date, decoded[:, : coder.blocks.height, : coder.blocks.width])
        if share <= 1 or step == 0:
            best = step, decoded, coder.mark(before)
        guess = Guess(decoded.astype(np.float64), step)
        return share

    STEPS.coarsest(used, min(begin if begin < STEP_MAX else coder.lately, most), most)
    assert best is not None, "the finest step is tried if no other keeps the bound"
    step, decoded, after = best
    coder.go_back(after)
    coder.lately = step if step < most else STEP_MAX
    coder.past.add(turn.date, decoded, target.at)
    further.add(turn.date, decoded, target.at)
    return coder.lately


def decode_group(stream: bytes, blocks: Blocks, components: int, dates: Sequence[int]) -> Iterator[tuple[int, Shorts]]:
    """(date, (K, height, width) planes) of those of `dates`, in the order of coding; no further than the last of them.

    Raises:
        Corrupt: the stream holds fewer dates, or ends early.
    """
    count, left = int.from_bytes(stream[:2], "little"), set(dates)
    if len(stream) < 3 or (left and max(left) >= count) or stream[2] > STEP_MAX:
        raise Corrupt(
            f"a stream of {len(stream)} bytes and {count} rasters has none at {max(left, default=0)}; "
            "restore the raster"
        )
    data = np.frombuffer(stream[3:], np.uint8).copy()
    coder = Coder.of(blocks, components, data, start_decoder(data), stream[2])
    for turn in turns(count):
        if not left:
            return
        step, at = coder.told(turn, -1, np.zeros(2, np.int64))
        turn = coder.further(turn, None, encode=False)
        seen = coder.references(turn, at)
        decoded = coder.code(turn, np.empty((0, *seen.shape[2:]), np.float32), seen, step, encode=False)
        if coder.state[4] > len(data) + 64:
            raise Corrupt(f"a stream of {len(stream)} bytes ends before its rasters do; restore the raster")
        coder.past.add(turn.date, decoded, at)
        if turn.date in left:
            left.discard(turn.date)
            yield turn.date, decoded[:, : blocks.height, : blocks.width]
