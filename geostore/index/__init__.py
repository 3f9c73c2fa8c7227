"""Similarity search: descriptors, signatures, and exact search over them with filters first."""

from __future__ import annotations
