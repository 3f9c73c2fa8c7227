"""estimate: what ingest and fit would cost and give, and how sure that is, from a few cells, before any writing."""

from geostore.estimate.totals import Estimate, estimate

__all__ = ["Estimate", "estimate"]
