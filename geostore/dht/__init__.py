"""Which node owns a cell."""
