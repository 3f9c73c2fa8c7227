"""A small real service for wire tests: it answers a few verbs from memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from geostore.errors import NotFound
from geostore.query.handlers import Asked
from geostore.query.messages import Reply


@dataclass
class Echo:
    """`status` answers 1 KiB, `decode` one array of `reply_bytes`, `put` the sum of what came, `scenes` waits."""

    reply_bytes: int = 6 * 2**20
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    asked: list[Asked] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        verb = asked.request.verb
        if verb == "decode":
            return Reply({}, (np.arange(self.reply_bytes // 2, dtype=np.uint16),))
        if verb == "put":
            return Reply(
                {"sums": [float(a.sum()) for a in asked.arrays], "shapes": [list(a.shape) for a in asked.arrays]}
            )
        if verb == "scenes":
            self.entered.set()
            assert self.gate.wait(60)
        if verb == "withdraw":
            raise NotFound("no scene 'x' in 'y'; list them with `geostore scenes`")
        if verb == "collections":
            raise RuntimeError("a bug")
        if verb == "cells":
            return Reply({"cells": [{"geohash": f"u{i:05d}", "n": i} for i in range(20_000)]})
        return Reply({"verb": verb}, (np.zeros(1024, np.uint8),))
