"""bench: the figures geostore is held to, each measured as a ratio inside one run."""
