"""A bench's result: figures with the bar they are held to, rows behind them, and where they were measured."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Better = Literal["lower", "higher"]
RESULTS = Path(__file__).parent / "results"
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        value: the number; None where the run was too small to tell.
        bar: what it is held to, or None for a number that is only reported.
        better: which way is better.
        baseline: what it is measured against, in words.
        n: how often it was measured; `value` is the median.
    """

    value: float | None
    bar: float | None
    better: Better
    baseline: str
    n: int

    @property
    def kept(self) -> bool | None:
        """Whether the bar is kept; None where there is none, or nothing was measured."""
        if self.bar is None or self.value is None:
            return None
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


@dataclass
class Bench:
    """The result of one bench while it is gathered."""

    name: str
    seed: int = 0
    quick: bool = False
    folder: Path = RESULTS
    options: dict[str, Any] = field(default_factory=dict)
    commit: str = field(default_factory=lambda: commit())
    figures: dict[str, Figure] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def figure(
        self,
        key: str,
        value: float | None,
        *,
        better: Better,
        baseline: str,
        bar: float | None = None,
        n: int = 1,
    ) -> None:
        """Note a figure."""
        self.figures[key] = Figure(value=_short(value), bar=bar, better=better, baseline=baseline, n=n)

    def row(self, **fields: Any) -> None:
        """Note one line of what lies behind the figures."""
        self.rows.append({k: _short(v) for k, v in fields.items()})

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "name": self.name,
            "commit": self.commit,
            "machine": machine(),
            "seed": self.seed,
            "quick": self.quick,
            "figures": {key: asdict(f) for key, f in self.figures.items()},
            "rows": self.rows,
        }

    def write(self) -> Path:
        """Write `<name>.json`; its path. Called after each data set too, so that an interrupt loses little."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.name}.json"
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n")
        return path

    def show(self) -> None:
        """Print rows and figures as tables."""
        from rich.console import Console
        from rich.table import Table

        console = Console(width=None if os.isatty(1) else 160)
        for title, columns, rows in _tables(self):
            table = Table(*columns, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            console.print(table)


def _tables(bench: Bench) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """(title, columns, rows): one table for each shape of row, then the figures."""
    shapes = dict.fromkeys(tuple(row) for row in bench.rows)
    for shape in shapes:
        rows = [[text(row[c]) for c in shape] for row in bench.rows if tuple(row) == shape]
        yield bench.name, list(shape), rows
    lines = [_line(key, f) for key, f in bench.figures.items()]
    yield f"{bench.name}: figures", ["figure", "value", "bar", "kept", "baseline", "n"], lines


def _line(key: str, figure: Figure) -> list[str]:
    return [key, text(figure.value), bar_text(figure), kept_text(figure), figure.baseline, str(figure.n)]


def bar_text(figure: Figure | None) -> str:
    """The bar with its direction; "" where there is none."""
    if figure is None or figure.bar is None:
        return ""
    return f"{'<=' if figure.better == 'lower' else '>='} {text(figure.bar)}"


def kept_text(figure: Figure | None) -> str:
    """Whether the bar is kept, for a table cell."""
    kept = None if figure is None else figure.kept
    return "" if kept is None else "yes" if kept else "NO"


def text(value: Any) -> str:
    """A value for a table cell."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _short(value: Any) -> Any:
    """A float with the six digits that mean something; others as they are."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def interleaved(tasks: dict[str, Callable[[], object]], *, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of each task in each of `rounds` rounds; all tasks run once a round, in turn, after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            gc.collect()
            begun = time.perf_counter()
            task()
            if number or not rounds:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return float(statistics.median(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over rounds of above / below, each pair from one round."""
    return median([a / b for a, b in zip(above, below, strict=True)])


def commit() -> str:
    """The commit measured, with "+" where the working tree differs from it; "" outside a repository."""
    here = Path(__file__).parent
    try:
        name = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True)
        tree = ["git", "status", "--porcelain", "--untracked-files=no", "--", "../geostore", "."]
        changed = subprocess.run(tree, cwd=here, capture_output=True, text=True)
    except OSError:
        return ""
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, memory, load as the result is written, system, Python."""
    import psutil

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that is gone afterwards, on the disk that TMPDIR names."""
    with tempfile.TemporaryDirectory(prefix="geostore-bench-") as folder:
        yield Path(folder)


Options = Callable[[argparse.ArgumentParser], None]  # adds what only one bench takes


def run(
    measure: Callable[[Bench], None], name: str, argv: Sequence[str] | None = None, options: Options | None = None
) -> Path:
    """The command line of every bench: measure, write the result, print it.

    `--quick` measures little, on synthetic scenes, to show that the bench works; its numbers mean nothing and are
    written to `results/quick`.
    """
    parser = argparse.ArgumentParser(f"bench.{name}")
    parser.add_argument("--quick", action="store_true", help="small, synthetic and untimed: shows that it works")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the result")
    common = set(vars(parser.parse_args([])))
    if options is not None:
        options(parser)
    args = parser.parse_args(argv)
    own = {key: value for key, value in vars(args).items() if key not in common}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bench = Bench(name, args.seed, args.quick, args.out or (RESULTS / "quick" if args.quick else RESULTS), own)
    measure(bench)
    path = bench.write()
    bench.show()
    return path
