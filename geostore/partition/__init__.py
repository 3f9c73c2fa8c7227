"""Where things lie: geohash cells, the grids of cells, and cutting scenes into cells."""
