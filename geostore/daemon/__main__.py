"""`python -m geostore.daemon` is `geostore-node`."""

from __future__ import annotations

from geostore.daemon.main import main

raise SystemExit(main())
