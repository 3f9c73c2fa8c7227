"""Freed memory is used again: a process that keeps it asks the system for few fresh pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys, threading
import numpy as np
from geostore.daemon.memory import keep_freed_memory

assert sys.argv[1] == "no" or keep_freed_memory()

def work():
    for _ in range(50):
        held = [np.ones(mb * 1_000_000, np.uint8) for mb in range(1, 7)]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
"""


def _faults(keep: str) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS, keep], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no mallopt")
def test_freed_memory_is_not_asked_for_again() -> None:
    assert _faults("yes") < _faults("no") / 5
