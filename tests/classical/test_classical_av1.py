"""AV1 streams: what goes in comes out, any AV1 decoder reads them, in the same samples however it runs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pytest

from geostore.classical import av1
from geostore.classical.av1 import decode_frames, encode_frames, temporal_units, with_delimiters
from geostore.errors import Corrupt

SHAPE = (64, 96)
COUNT = 11


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    moving = [512 + 200 * np.sin((x + 2 * t) / 9) + 150 * np.cos((y - t) / 7) for t in range(COUNT)]
    return np.clip(np.stack(moving) + rng.normal(0, 4, (COUNT, *SHAPE)), 0, 1023).astype(np.uint16)


@pytest.fixture(scope="module")
def stream(frames: np.ndarray) -> bytes:
    return encode_frames(frames, crf=20, preset=8)


def digest(pictures) -> str:  # type: ignore[no-untyped-def]
    return sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in pictures)).hexdigest()


def plain(path: Path, threads: int) -> str:
    """Luma of every picture of a file, through FFmpeg's demuxer and the decoder it chooses itself."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        video.thread_count = threads
        seen = [frame.to_ndarray()[: SHAPE[0]] for frame in file.decode(video)]
    assert len(seen) == COUNT
    return digest(seen)


def ivf(stream: bytes) -> bytes:
    """The stream as an IVF file."""
    units = temporal_units(stream)
    head = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"AV01", SHAPE[1], SHAPE[0], 25, 1, len(units), 0)
    return head + b"".join(struct.pack("<IQ", len(u) + 2, t) + b"\x12\x00" + u for t, u in enumerate(units))


def test_pictures_come_back_in_order_and_near(frames: np.ndarray, stream: bytes) -> None:
    """Every picture of a stream decodes near what was coded, and a part of them decodes to the same as all."""
    whole = list(decode_frames(stream, COUNT, SHAPE))
    assert np.sqrt(np.mean((np.stack(whole).astype(float) - frames) ** 2)) < 6
    for count in (1, 4, COUNT - 1):
        assert digest(decode_frames(stream, count, SHAPE)) == digest(whole[:count])


def test_a_unit_is_a_picture(stream: bytes) -> None:
    """The stream cuts into as many units as pictures, none of which holds a temporal delimiter."""
    units = temporal_units(stream)
    assert len(units) == COUNT
    assert b"".join(units) == stream
    assert not any(u.startswith(b"\x12\x00") for u in units)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("kind", ["obu", "ivf"])
def test_a_decoder_of_others_reads_the_stream(tmp_path: Path, stream: bytes, kind: str, threads: int) -> None:
    """As an OBU or an IVF file FFmpeg opens it and dav1d decodes the same samples, as AV1 asks of every decoder."""
    path = tmp_path / f"stream.{kind}"
    path.write_bytes(with_delimiters(stream) if kind == "obu" else ivf(stream))
    assert plain(path, threads) == digest(decode_frames(stream, COUNT, SHAPE))


_MASKED = """
import ctypes, sys
from hashlib import sha256
from pathlib import Path
import av
from geostore.classical import av1
from geostore.classical.av1 import decode_frames
(library,) = Path(av.__file__).parents[1].glob("av.libs/libdav1d*")
ctypes.CDLL(str(library)).dav1d_set_cpu_flags_mask(ctypes.c_uint(int(sys.argv[1], 16)))
stream = sys.stdin.buffer.read()
print(sha256(b"".join(p.tobytes() for p in decode_frames(stream, int(sys.argv[2]), (64, 96)))).hexdigest())
"""


@pytest.mark.parametrize("mask", ["0", "3", "ffffffff"])
def test_decoding_is_the_same_without_instruction_sets(stream: bytes, mask: str) -> None:
    """With the decoder kept to plain C, to old x86, or free, in processes of their own, samples are the same."""
    library = list(Path(av.__file__).parents[1].glob("av.libs/libdav1d*"))
    if not library or os.name != "posix":
        pytest.skip("PyAV brings no dav1d library whose instruction sets could be masked")
    command = [sys.executable, "-c", _MASKED, mask, str(COUNT)]
    seen = subprocess.run(command, input=stream, capture_output=True, check=True).stdout.decode().strip()
    assert seen == digest(decode_frames(stream, COUNT, SHAPE))


def test_a_stream_of_another_shape_or_too_few_pictures_is_corrupt(stream: bytes) -> None:
    """Asking for more pictures than there are, or for others, raises Corrupt."""
    with pytest.raises(Corrupt, match="wanted 12"):
        list(decode_frames(stream, COUNT + 1, SHAPE))
    with pytest.raises(Corrupt, match="wanted 64 x 64"):
        list(decode_frames(stream, 1, (64, 64)))
    with pytest.raises(Corrupt, match="inside the OBU"):
        list(decode_frames(stream[: len(stream) // 2], COUNT, SHAPE))


@pytest.mark.skipif(sys.platform != "linux", reason="threads and their priority are named by Linux")
def test_the_encoder_takes_no_real_time_priority() -> None:
    """Run by root or not, the encoder's threads wait their turn like all others."""
    before, own = policies(), os.sched_getscheduler(0)
    encoder = av1._encoder((1, 64, 64), 30.0, 8)
    assert encoder.is_open
    after = policies()
    assert os.sched_getscheduler(0) == own
    assert len(after) > len(before)
    assert {policy for thread, policy in after.items() if thread not in before} == {own}


def policies() -> dict[int, int]:
    """How each thread of this process is scheduled."""
    return {int(t.name): os.sched_getscheduler(int(t.name)) for t in Path("/proc/self/task").iterdir()}
