"""geostore collections: what the store was declared to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geostore.cli import show
from geostore.cli.session import Session

if TYPE_CHECKING:
    from geostore.collection import Collection, Policy


def collections(session: Session) -> None:
    """The newest version of every collection: bands, grid and fidelity policy."""
    from geostore.collection import collection_to_dict

    with session.reader() as client:
        found = client.collections()
    columns = ("name", ">version", "product", ">precision", "bands", "policy")
    session.answer(
        {"collections": [collection_to_dict(c) for c in found]},
        lambda out: out.print(show.table("Collections", columns, [_row(c) for c in found])),
    )


def _row(c: Collection) -> tuple[Any, ...]:
    bands = "; ".join(f"{group}: {', '.join(b.names)}" for group, b in c.groups.items())
    return c.name, c.version, c.product, c.precision, bands, bounds(c.policy)


def bounds(p: Policy) -> str:
    """What a policy bounds, in one line."""
    limits = {
        "MSE": p.mse_max,
        "mean error": p.mae_max,
        "p99": p.p99_max,
        "max error": p.max_error,
        "index mean": p.index_mae_max,
        "index p99": p.index_p99_max,
        "index max": p.index_max,
    }
    for index in p.index:
        own = p.index_bounds(index)
        limits |= {f"{index} mean": own.mae_max, f"{index} p99": own.p99_max, f"{index} max": own.max_error}
    said = [f"{name} <= {value:g}" for name, value in limits.items() if value is not None]
    return ", ".join([*said, *([f"domain {p.domain}"] if p.domain != "auto" else [])]) or "none"
