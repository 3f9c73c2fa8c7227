"""Classical codecs over a whole series: what bands and dates share is taken out by a KLT, a video or a wavelet.

Every coder takes a series and a setting, and returns the bytes a reader needs and the values it would read. Bytes are
payloads, side matrices and 2 bytes a packet for an index; containers are not counted (they would be ours to write).
Masked pixels are filled by what codes for least; the mask itself is counted for every codec alike, elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt

from bench.baselines import jpeg2000_lossy, jpegxl_lossy, lerc
from geostore.classical.av1 import usual_priority
from geostore.codec import Series
from geostore.raster import Grid, Pixels, Raster
from geostore.scene.writer import lzw_size
from geostore.spectral import FLOOR

Doubles = npt.NDArray[np.float64]
Planes = npt.NDArray[np.uint16]
Domain = Literal["linear", "log"]
Setting = Mapping[str, Any]
PACKET_BYTES = 2  # of an index of packets
_SMALLEST = 64  # pixels a side that SVT-AV1 takes
os.environ.setdefault("SVT_LOG", "1")  # errors only


@dataclass(frozen=True)
class Coded:
    """A series as a codec keeps it.

    Attributes:
        nbytes: all that a reader needs, masks apart.
        pixels: (T, B, H, W) stored values as decoded.
    """

    nbytes: int
    pixels: Pixels


def filled(series: Series) -> Doubles:
    """(T, B, H, W) stored values; where masked, the pixel's mean over time moved by how the date differs from it."""
    pixels = series.pixels.astype(np.float64)
    if series.valid.all():
        return pixels
    seen = series.valid[:, None].astype(np.float64)
    count = seen.sum(axis=0)
    overall = (pixels * seen).sum(axis=(0, 2, 3)) / max(seen.sum(), 1)
    mean = np.where(count > 0, (pixels * seen).sum(axis=0) / np.maximum(count, 1), overall[:, None, None])
    moved = ((pixels - mean) * seen).sum(axis=(2, 3)) / np.maximum(seen.sum(axis=(2, 3)), 1)
    return np.where(series.valid[:, None], pixels, mean + moved[:, :, None, None])


def stored(values: Doubles, series: Series) -> Pixels:
    """Rounded, and held in the bands' valid range."""
    low = np.array([b.valid_min for b in series.bands])[:, None, None]
    high = np.array([b.valid_max for b in series.bands])[:, None, None]
    return np.asarray(np.clip(np.rint(values), low, high), series.bands.dtype)


# --- the domain and the KLT ------------------------------------------------------------------------------------------


def to_domain(values: Doubles, series: Series, domain: Domain) -> Doubles:
    """Stored values, or the logarithm of physical ones raised to the floor of spectral indices."""
    if domain == "linear":
        return values
    scale, offset = _scale_offset(series)
    return np.asarray(np.log(np.maximum(values * scale + offset, FLOOR)))


def from_domain(values: Doubles, series: Series, domain: Domain) -> Doubles:
    """The inverse of `to_domain`, above its floor."""
    if domain == "linear":
        return values
    scale, offset = _scale_offset(series)
    return np.asarray((np.exp(np.minimum(values, 5.0)) - offset) / scale)


def _scale_offset(series: Series) -> tuple[Doubles, Doubles]:
    bands = series.bands
    return tuple(np.array([getattr(b, k) for b in bands])[:, None, None] for k in ("scale", "offset"))  # type: ignore


@dataclass(frozen=True)
class Rotation:
    """A Karhunen-Loeve transform over bands.

    Attributes:
        mean: (B,) float32. basis: (B, B) float32, a component a column, by falling variance.
    """

    mean: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]

    @classmethod
    def of(cls, values: Doubles, valid: npt.NDArray[np.bool_]) -> Rotation:
        """Of (T, B, H, W) where (T, H, W) `valid`."""
        samples = values.transpose(0, 2, 3, 1)[valid]  # (T, B, H, W) -> (N, B)
        _, basis = np.linalg.eigh(np.atleast_2d(np.cov(samples.T)))
        return cls(samples.mean(axis=0).astype(np.float32), basis[:, ::-1].astype(np.float32))

    def forward(self, values: Doubles) -> Doubles:
        """(T, B, H, W) -> (T, components, H, W)."""
        centred = values - self.mean[:, None, None].astype(np.float64)
        return np.einsum("tbhw,bk->tkhw", centred, self.basis.astype(np.float64), optimize=True)

    def inverse(self, components: Doubles) -> Doubles:
        """(T, components, H, W) -> (T, B, H, W)."""
        values = np.einsum("tkhw,bk->tbhw", components, self.basis.astype(np.float64), optimize=True)
        return np.asarray(values + self.mean[:, None, None].astype(np.float64))

    @property
    def nbytes(self) -> int:
        """As float32."""
        return self.mean.nbytes + self.basis.nbytes


@dataclass(frozen=True)
class Levels:
    """Components as integers of `bits` bits, one step for all: the range of the widest."""

    low: Doubles
    step: float
    bits: int

    @classmethod
    def of(cls, components: Doubles, bits: int) -> Levels:
        """Of (T, components, H, W)."""
        low, high = components.min(axis=(0, 2, 3)), components.max(axis=(0, 2, 3))
        return cls(low, float((high - low).max() or 1) / (2**bits - 1), bits)

    def quantise(self, components: Doubles) -> Planes:
        """(T, components, H, W) as whole numbers from 0."""
        return np.asarray(np.rint((components - self.low[:, None, None]) / self.step), np.uint16)

    def restore(self, planes: Planes) -> Doubles:
        """The inverse of `quantise`, but for rounding."""
        return planes.astype(np.float64) * self.step + self.low[:, None, None]

    @property
    def nbytes(self) -> int:
        """Low values and the step, as float32."""
        return 4 * (len(self.low) + 1)


Planar = Callable[[Planes, Setting], tuple[int, Planes]]  # (T, components, H, W) there and back


def with_klt(series: Series, setting: Setting, code: Planar, bits: int) -> Coded:
    """KLT over bands in the domain of `setting`, its components through `code`."""
    values = to_domain(filled(series), series, setting["domain"])
    rotation = Rotation.of(values, series.valid)
    components = rotation.forward(values)
    levels = Levels.of(components, bits)
    nbytes, planes = code(levels.quantise(components), setting)
    decoded = from_domain(rotation.inverse(levels.restore(planes)), series, setting["domain"])
    return Coded(nbytes + rotation.nbytes + levels.nbytes, stored(decoded, series))


# --- video -----------------------------------------------------------------------------------------------------------


def hevc(series: Series, setting: Setting) -> Coded:
    """KLT + x265, 12-bit grey, psychovisual tuning off; `crf`, `gop` (0: one), `domain`."""
    return with_klt(series, setting, _hevc_planes, 12)


def _hevc_planes(planes: Planes, setting: Setting) -> tuple[int, Planes]:
    gop = setting["gop"] or -1
    params = f"psy-rd=0:psy-rdoq=0:keyint={gop}:min-keyint={max(gop, 1)}:scenecut=0:open-gop=0:info=0:pools=1"
    options = {"crf": str(setting["crf"]), "preset": "medium", "x265-params": params + ":frame-threads=1:log-level=0"}
    return _each_component(planes, lambda p, _: _video(p, "libx265", "gray12le", options))


def svt_av1(series: Series, setting: Setting) -> Coded:
    """KLT + SVT-AV1, 10 bits, tuned for PSNR; `crf`, `gop` (0: one), `domain`, `offset` of the crf from component 2."""
    return with_klt(series, setting, _svt_planes, 10)


def _svt_planes(planes: Planes, setting: Setting) -> tuple[int, Planes]:
    def code(plane: Planes, component: int) -> tuple[int, Planes]:
        crf = max(1, setting["crf"] - (setting.get("offset", 0) if component else 0))
        params = f"tune=1:scd=0:lp=1:keyint={setting['gop'] or -1}"
        return _video(plane, "libsvtav1", "yuv420p10le", {"crf": str(crf), "preset": "4", "svtav1-params": params})

    return _each_component(planes, code)


def _each_component(planes: Planes, code: Callable[[Planes, int], tuple[int, Planes]]) -> tuple[int, Planes]:
    total, out = 0, np.empty_like(planes)
    for i in range(planes.shape[1]):
        nbytes, out[:, i] = code(planes[:, i], i)
        total += nbytes
    return total, out


def _video(plane: Planes, codec: str, pixel_format: str, options: dict[str, str]) -> tuple[int, Planes]:
    """One component (T, H, W) as a stream: bytes of packets and index, and what decodes."""
    count, height, width = plane.shape
    rows, columns = (max(_SMALLEST, n + n % 2) - n for n in (height, width))
    padded = np.pad(plane, ((0, 0), (0, rows), (0, columns)), mode="edge")
    packets = _encode(padded, codec, pixel_format, options)
    decoded = _decode(packets, "libdav1d" if codec == "libsvtav1" else "hevc", padded.shape)
    return sum(map(len, packets)) + PACKET_BYTES * count, decoded[:, :height, :width]


def _encode(plane: Planes, codec: str, pixel_format: str, options: dict[str, str]) -> list[bytes]:
    import av

    context = av.CodecContext.create(codec, "w")
    context.height, context.width = plane.shape[1:]
    context.pix_fmt, context.thread_count = pixel_format, 1
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = options
    with usual_priority():
        context.open()
    packets = []
    for t, image in enumerate(plane):
        frame = _frame(image, pixel_format)
        frame.pts = t
        packets += [bytes(p) for p in context.encode(frame)]
    return packets + [bytes(p) for p in context.encode(None)]


def _frame(image: Planes, pixel_format: str) -> Any:
    import av

    if pixel_format.startswith("gray"):
        return av.VideoFrame.from_ndarray(image, format=pixel_format)
    height, width = image.shape
    chroma = np.full((height // 2, width), 512, np.uint16)  # two planes of a quarter each, neutral
    return av.VideoFrame.from_ndarray(np.concatenate([image, chroma]), format=pixel_format)


def _decode(packets: Sequence[bytes], codec: str, shape: tuple[int, ...]) -> Planes:
    import av

    context = av.CodecContext.create(codec, "r")
    context.thread_count = 1
    frames = [f for data in packets for f in context.decode(av.Packet(data))] + list(context.decode(None))
    out = np.empty(shape, np.uint16)
    for t, frame in enumerate(frames):
        out[t] = frame.to_ndarray()[: shape[1]]
    assert len(frames) == shape[0], f"{len(frames)} frames of {shape[0]}"
    return out


def aom_avif(series: Series, setting: Setting) -> Coded:
    """KLT + libaom 12-bit through AVIF, components by threes as G, B, R; `level` 0-100, `gop` (0: one file), `domain`.

    Only the coded payload counts, not the container, which is some hundred bytes a file.
    """
    return with_klt(series, setting, _avif_planes, 12)


def _avif_planes(planes: Planes, setting: Setting) -> tuple[int, Planes]:
    count, parts = planes.shape[:2]
    length, total, out = setting["gop"] or count, 0, np.empty_like(planes)
    for start in range(0, count, length):
        for first in range(0, parts, 3):
            dates, some = slice(start, start + length), slice(first, min(first + 3, parts))
            nbytes, out[dates, some] = _avif(planes[dates, some], setting["level"])
            total += nbytes + PACKET_BYTES * len(planes[dates])
    return total, out


_ORDER = (1, 2, 0)  # of three components as R, G, B: the first is G, which AV1 codes first


def _avif(planes: Planes, level: int) -> tuple[int, Planes]:
    count, parts, height, width = planes.shape
    colours = np.full((count, height, width, 3), 1 << 11, np.uint16)
    for i in range(parts):
        colours[..., _ORDER[i]] = planes[:, i]
    frames = colours if count > 1 else colours[0]
    data = imagecodecs.avif_encode(frames, level, speed=4, bitspersample=12, pixelformat=1, matrix=0, numthreads=1)
    decoded = np.asarray(imagecodecs.avif_decode(data, numthreads=1)).reshape(colours.shape)
    return _payload(bytes(data)), np.stack([decoded[..., _ORDER[i]] for i in range(parts)], axis=1)


def _payload(data: bytes) -> int:
    """Bytes in the `mdat` boxes of an ISO media file."""
    at, total = 0, 0
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 16 if size == 1 else 8
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        size = size or len(data) - at
        total += size - head if kind == b"mdat" else 0
        at += size
    return total


# --- wavelets over time and bands ------------------------------------------------------------------------------------


def klt_jpeg2000(series: Series, setting: Setting) -> Coded:
    """KLT over bands, then over dates, each plane as JPEG 2000 9/7 at an error of `rmse`; `domain`.

    A plane whose variance is below the error asked for is not kept.
    """
    values = to_domain(filled(series), series, setting["domain"])
    rotation = Rotation.of(values, series.valid)
    basis, planes = _over_dates(rotation.forward(values))
    error = setting["rmse"]
    total, kept = rotation.nbytes, np.zeros_like(planes)
    for t, b in np.ndindex(planes.shape[:2]):
        if (planes[t, b] ** 2).mean() > error**2:
            nbytes, kept[t, b] = _wavelet(planes[t, b], error)
            total += nbytes + PACKET_BYTES
    nbytes, basis = _coarse(basis, (kept**2).mean(axis=(2, 3)).sum(axis=1), error)
    decoded = rotation.inverse(np.einsum("tk,kbhw->tbhw", basis, kept, optimize=True))
    return Coded(total + nbytes, stored(from_domain(decoded, series, setting["domain"]), series))


def _over_dates(components: Doubles) -> tuple[Doubles, Doubles]:
    """The KLT over dates of (T, B, H, W): its basis (T, T), a column a component, and the planes (T, B, H, W)."""
    flat = components.reshape(len(components), -1)
    _, basis = np.linalg.eigh(flat @ flat.T)
    basis = basis[:, ::-1]
    return basis, np.einsum("tk,tbhw->kbhw", basis, components, optimize=True)


def _coarse(basis: Doubles, energy: Doubles, error: float) -> tuple[int, Doubles]:
    """The (T, T) basis as coarse as planes of (T,) `energy` allow: bytes by zstd, and what decodes.

    Together its columns may add a tenth to the squared error.
    """
    used = energy > 0
    steps = error * np.sqrt(1.2 / (max(used.sum(), 1) * np.maximum(energy, 1e-12)))
    steps = np.clip(steps, 1 / 32000, 1.0)
    whole = np.where(used, np.rint(basis / steps), 0).astype("<i2")
    return len(imagecodecs.zstd_encode(whole[:, used].tobytes(), level=19)) + 2 * len(basis), whole * steps


def _wavelet(plane: Doubles, error: float) -> tuple[int, Doubles]:
    """A plane as 16-bit JPEG 2000 at a root mean square error: bytes with its range, and what decodes."""
    low, step = float(plane.min()), float(np.ptp(plane) or 1) / 65535
    data, decoded = jpeg2000_lossy(np.rint((plane - low) / step).astype(np.uint16), step / error)
    return data + 8, decoded * step + low


# --- plane by plane, and in one block --------------------------------------------------------------------------------


def _by_plane(code: Callable[[Any, float], tuple[int, Any]]) -> Callable[[Series, Setting], Coded]:
    def whole(series: Series, setting: Setting) -> Coded:
        values, out, total = stored(filled(series), series), np.empty_like(series.pixels), 0
        low = int(min(values.min(), 0))  # int16 series are moved to where unsigned codecs take them
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        for t, b in np.ndindex(values.shape[:2]):
            plane = np.ascontiguousarray((values[t, b].astype(np.int32) - low).astype(unsigned))
            nbytes, decoded = code(plane, setting["quality"])
            total, out[t, b] = total + nbytes, (decoded.astype(np.int32) + low).astype(out.dtype)
        return Coded(total, out)

    return whole


def sz3(series: Series, setting: Setting) -> Coded:
    """SZ3 at a largest error of `bound`, stored units: the smaller of one 4-D and one 3-D block a band."""
    values = filled(series).astype(np.float32)
    whole = _sz3(values, setting["bound"])
    bands = [_sz3(np.ascontiguousarray(values[:, b]), setting["bound"]) for b in range(values.shape[1])]
    split = sum(n for n, _ in bands), np.stack([d for _, d in bands], axis=1)
    nbytes, decoded = min(whole, split, key=lambda item: item[0])
    return Coded(nbytes, stored(decoded.astype(np.float64), series))


def _sz3(values: npt.NDArray[np.float32], bound: float) -> tuple[int, npt.NDArray[np.float32]]:
    from pysz import sz, szConfig, szErrorBoundMode

    config = szConfig()
    config.setDims(*values.shape)
    config.errorBoundMode, config.absErrorBound = szErrorBoundMode.ABS, float(bound)
    data, _ = sz.compress(values, config)
    decoded, _ = sz.decompress(data, np.float32, values.shape)
    return len(data), decoded


def rounded_jpegxl(series: Series, setting: Setting) -> Coded:
    """Values rounded to steps of 2 `bound` + 1, stored units, then JPEG XL lossless: the plain way to a bound."""
    step, total = 2 * int(setting["bound"]) + 1, 0
    values = stored(filled(series), series).astype(np.int64)
    steps = (values - values.min() + step // 2) // step
    for t, b in np.ndindex(values.shape[:2]):
        plane = np.ascontiguousarray(steps[t, b].astype(np.uint16 if steps.max() > 255 else np.uint8))
        total += min(len(imagecodecs.jpegxl_encode(plane, lossless=True, effort=e, numthreads=1)) for e in (3, 7))
    return Coded(total, stored((steps * step + values.min()).astype(np.float64), series))


def lzw(series: Series, _: Setting) -> Coded:
    """Tiled LZW GeoTIFF, predictor 2, one file a date: lossless."""
    return Coded(sum(lzw_size(r) for r in rasters(series)), series.pixels)


def rasters(series: Series) -> list[Raster]:
    """Every date as a raster; where it lies changes no byte count."""
    height, width = series.pixels.shape[2:]
    grid = Grid("EPSG:3857", 0.0, 0.0, 10.0, 10.0, height, width)
    pairs = zip(series.pixels, series.valid, strict=True)
    return [Raster(pixels=p, valid=v, bands=series.bands, grid=grid) for p, v in pairs]


CODERS: dict[str, Callable[[Series, Setting], Coded]] = {
    "KLT + SVT-AV1": svt_av1,
    "KLT + libaom AVIF": aom_avif,
    "KLT + HEVC": hevc,
    "KLT + JPEG 2000": klt_jpeg2000,
    "JPEG XL": _by_plane(jpegxl_lossy),
    "JPEG 2000": _by_plane(jpeg2000_lossy),
    "LERC": _by_plane(lerc),
    "SZ3": sz3,
    "rounded + JPEG XL": rounded_jpegxl,
    "LZW GeoTIFF": lzw,
}
