"""What a victim was told is durable, one flushed line each, kept where its fault cannot reach."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Ledger:
    """An append-only file of JSON lines; a line counts once it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Write one line and bring it to the disk."""
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, json.dumps(entry).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)

    def entries(self) -> list[dict[str, Any]]:
        """Every whole line, oldest first."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]
