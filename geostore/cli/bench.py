"""geostore bench: how good search is on data of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geostore.amounts import counted
from geostore.cli import show
from geostore.cli.session import Session
from geostore.cli.verb import verb

if TYPE_CHECKING:
    from rich.console import Console

    from geostore.retrieval import Retrieval, Score

app = typer.Typer(help="Measure on data of your own.", no_args_is_help=True)


def bench_retrieval(
    session: Session,
    path: Annotated[Path, typer.Argument(help="Folder of UC Merced, RESISC45, AID, EuroSAT or BigEarthNet.")],
    descriptor: Annotated[str, typer.Option(help="Name of an installed descriptor.")] = "spectral",
    bits: Annotated[list[int] | None, typer.Option(help="Width of signatures; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="One of the methods; may be repeated.")] = None,
    k: Annotated[int, typer.Option(help="How far down rankings count.", min=1)] = 20,
    train_share: Annotated[float, typer.Option(help="Of each class, where the set gives no parts.")] = 0.8,
    scenes_max: Annotated[int, typer.Option(help="A larger set is sampled, each class alike.")] = 30_000,
    published_steps: Annotated[int, typer.Option(help="Steps of the published recipe's training.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Parts, samples and trainings follow from it.")] = 0,
) -> None:
    """Mean average precision, precision and recall of descriptors and signatures on a labelled set."""
    from geostore.retrieval import BITS, METHODS, retrieval

    with session.progress("bench retrieval") as progress:
        found = retrieval(
            path,
            descriptor=descriptor,
            bits=bits or BITS,
            methods=method or METHODS,
            k=k,
            train_share=train_share,
            scenes_max=scenes_max,
            published_steps=published_steps,
            seed=seed,
            progress=progress,
        )
    session.answer(found.to_dict(), lambda out: _show(out, found))


def _show(out: Console, found: Retrieval) -> None:
    facts = found.facts
    title = (
        f"{facts['layout']}, {counted(facts['labels'], 'label')}, {facts['descriptor']} of "
        f"{', '.join(facts['bands'])}: {facts['queries']} queries among {counted(facts['database'], 'scene')}, "
        f"parts {facts['parts']}"
    )
    depths = sorted(found.scores[0].precision)
    columns = ["method", ">bits", f">mAP@{found.k}", ">strict", ">lenient (MiLaN)"]
    columns += [f">P@{d}" for d in depths] + [f">R@{d}" for d in depths]
    out.print(show.table(title, columns, [_row(s, depths) for s in found.scores]))
    for line in found.left_out:
        out.print(f"left out: {line}")


def _row(score: Score, depths: list[int]) -> list[str]:
    numbers = [score.map, score.map_strict, score.map_lenient]
    numbers += [score.precision[d] for d in depths] + [score.recall[d] for d in depths]
    return [score.method, str(score.bits or ""), *(f"{n:.3f}" for n in numbers)]


app.command("retrieval")(verb(bench_retrieval))
