"""A head for the signatures of a model: learned from labels where these are enough, else from what is stored alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from geostore.index.signatures import BASELINES, Head
from geostore.index.views import Views, no_views
from geostore.node.search.judging import Verdict, judge, obeyed
from geostore.node.search.models import head_from_bytes
from geostore.node.search.parts import kept
from geostore.node.search.sampling import LABELS, UNLABELLED, Bools, Described, samples
from geostore.node.search.training import KERNEL, method_for, train
from geostore.node.search.viewing import Viewing
from geostore.query.messages import IndexUpgrade, Progress


@dataclass(frozen=True)
class Learning:
    """The heads of one upgrade of one model.

    Attributes:
        viewing: what is described, and makes views of it.
        request: what was asked for.
        progress: told what is done; may raise to stop.
    """

    viewing: Viewing
    request: IndexUpgrade
    progress: Progress

    @property
    def rows(self) -> Described:
        """What is described."""
        return self.viewing.rows

    def head(self) -> tuple[bytes, dict[str, Any]]:
        """The head's bytes, and by what it was learned.

        Raises:
            InvalidInput: there is too little to learn from.
        """
        verdict = self._verdict()
        used = verdict is not None and verdict.used
        data, facts = self._trained(LABELS if used else UNLABELLED)
        return data, {**facts, "labels": None if verdict is None else verdict.to_dict()}

    def _verdict(self) -> Verdict | None:
        """Whether labels are used; None where there are none, or the head learns from nothing."""
        if self.request.by is not None:
            return obeyed(self.rows, self.request.by)
        if self.request.head in BASELINES:
            return None
        return judge(self.rows, self._made, seed=self.request.seed)

    def _made(self, by: str, among: Bools | None) -> Head:
        return head_from_bytes(self._trained(by, among)[0])

    def _trained(self, by: str, among: Bools | None = None) -> tuple[bytes, dict[str, Any]]:
        """A head by LABELS or UNLABELLED, of the rows `among`, all if None."""
        asked = self.request
        chosen, groups, rule = samples(self.rows, by, seed=asked.seed, among=among)
        method = asked.head or method_for(groups, rule)
        points = self.rows.points(chosen)
        views = self._views.among(chosen) if (method, rule) == (KERNEL, LABELS) else no_views(points.shape[1])
        data = kept(
            self.viewing.root,
            {"head": method, "bits": asked.bits, "steps": asked.steps, "seed": asked.seed},
            (points, groups, views.vectors, views.of),
            lambda: train(
                method, points, groups, views, asked.bits, steps=asked.steps, seed=asked.seed, progress=self.progress
            ),
        )
        return data, {"by": rule, "rows": len(points), "views": len(views), "method": method}

    @cached_property
    def _views(self) -> Views:
        """Of all rows that labels can be learned from."""
        chosen, _, _ = samples(self.rows, LABELS, seed=self.request.seed)
        return self.viewing.views(chosen, seed=self.request.seed)
