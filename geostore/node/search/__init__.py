"""The index of a store: what its rows are made from, and how it is kept level with the tables."""

from __future__ import annotations
