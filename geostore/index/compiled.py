"""How this package's kernels are compiled: to run without the interpreter's lock, and kept for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba import types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code, made at its first call."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def _popcount(_: Any, __: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


# How many bits of a uint64 are set; for compiled code only.
popcount = cast(Callable[[Any], int], intrinsic(_popcount))
