"""The clients: every verb of a store, waiting or awaited, over one set of steps."""

from __future__ import annotations

from geostore.client.asker import Asker
from geostore.client.awaiting import AsyncClient
from geostore.client.blocking import Client
from geostore.client.hits import Hit, Hits, PlaceChanges, Vote
from geostore.client.times import Time, time_range
from geostore.query.facts import RasterInfo

__all__ = ["Asker", "AsyncClient", "Client", "Hit", "Hits", "PlaceChanges", "RasterInfo", "Time", "Vote", "time_range"]
