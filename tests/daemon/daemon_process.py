"""A real daemon in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType


class Daemon:
    """`geostore-node` on free ports, ready to be asked."""

    def __init__(self, store: Path, *flags: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.log_file = Path(self._folder.name) / "log"
        port_file = Path(self._folder.name) / "ports.json"
        command = [sys.executable, "-m", "geostore.daemon", "--store", str(store), "--port-file", str(port_file)]
        command += ["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", *flags]
        with self.log_file.open("w") as log:
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=env, cwd=self._folder.name)
        until_s = time.monotonic() + 60
        while not port_file.exists():
            assert self.process.poll() is None, self.log_file.read_text()
            assert time.monotonic() < until_s, self.log_file.read_text()
            os.sched_yield()
            time.sleep(0.02)
        ports = json.loads(port_file.read_text())
        self.address, self.http = ports["address"], ports["http"]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def log(self) -> list[dict[str, object]]:
        """Every log line so far."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not None:
            sys.stderr.write(self.log_file.read_text())
        self._folder.cleanup()
