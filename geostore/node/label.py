"""label: what rasters show, as a person or a program says it; kept as an event, so that it can be traced and undone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from geostore.errors import NotFound
from geostore.keys import RasterKey
from geostore.node.search.labelling import check_labels, label_event
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply

if TYPE_CHECKING:
    from geostore.node.node import Node


def label(node: Node, request: messages.Label, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Give rasters these labels in place of those they had; those that have just these are left alone.

    Raises:
        NotFound: a raster is not stored. InvalidInput: the legend has no such label.
    """
    with node.changing:
        known = node.following.spoken()
        check_labels(known.labelling, request.labels, request.legend)
        keys = [RasterKey(**vars(key)) for key in request.keys]
        for key in keys:
            if node.store.current_number(key) is None:
                raise NotFound(f"no raster {key}; `geostore rasters` lists what there is")
        labels = tuple(dict.fromkeys(request.labels))
        changed = [k for k in keys if known.labelling.names.get(k.to_bytes(), ()) != labels]
        if changed:
            now_us = max([time.time_ns() // 1000, *(e.time_us + 1 for e in known.events[-1:])])
            facts = {"legend": request.legend, "who": request.who, "reason": request.reason}
            node.store.commit([label_event(changed, labels, time_us=now_us, **facts)])
    return Reply({"labelled": len(changed), "unchanged": len(keys) - len(changed)})
