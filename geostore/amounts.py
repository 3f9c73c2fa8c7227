"""Sizes, ratios, numbers, counts and durations as people read them."""

from __future__ import annotations

NOTHING = "-"


def size(count: float | None) -> str:
    """Bytes in powers of 1000.

    Examples:
        >>> size(999), size(12_345), size(None)
        ('999 B', '12.3 kB', '-')
    """
    if count is None:
        return NOTHING
    value, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.3g} {units[0]}"


def number(value: float | None, pattern: str = ".3g") -> str:
    """A number by a format, or "-" where there is none."""
    return NOTHING if value is None else format(value, pattern)


def ratio(value: float | None) -> str:
    """How many times smaller.

    Examples:
        >>> ratio(12.34), ratio(18_581.0), ratio(None)
        ('12.3 x', '18,581 x', '-')
    """
    return NOTHING if value is None else f"{value:,.0f} x" if value >= 1000 else f"{value:.3g} x"


def quotient(part: float, whole: float) -> float | None:
    """Part / whole, or None where either is 0."""
    return part / whole if part and whole else None


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 raster", "1,234 rasters"; `noun` is the singular of a regular plural.

    Examples:
        >>> counted(1, "raster"), counted(0, "scene"), counted(1234, "cell")
        ('1 raster', '0 scenes', '1,234 cells')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds, or minutes from a minute and a half on."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
