"""Signatures with the structure that search meets: clusters of unequal size, and many equal ones."""

from __future__ import annotations

import numpy as np

from geostore.index.bits import pack_signatures


def clustered(rows, *, bits=128, clusters=40, noise=0.25, seed=0):
    """(W, N) uint64: sign bits of random directions of points around unequal clusters; a tenth are exact copies."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, clusters + 1) ** 0.6
    centres = rng.normal(size=(clusters, 24))
    points = centres[rng.choice(clusters, rows, p=share / share.sum())] + noise * rng.normal(size=(rows, 24))
    points[rng.random(rows) < 0.1] = centres[0]
    return pack_signatures(points @ rng.normal(size=(24, bits)) > 0)


def brute(words, query):
    """(N,) distances by NumPy alone."""
    return np.bitwise_count(words ^ np.asarray(query)[:, None]).sum(axis=0).astype(np.int16)


def brute_nearest(words, query, k, allowed=None, radius=None):
    """(rows, distances) by a full sort: distance, then row."""
    far = brute(words, query)
    rows = np.arange(words.shape[1]) if allowed is None else np.flatnonzero(allowed)
    rows = rows if radius is None else rows[far[rows] <= radius]
    order = np.lexsort((rows, far[rows]))[:k]
    return rows[order], far[rows][order]
