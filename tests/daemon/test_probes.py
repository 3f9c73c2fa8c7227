"""The loopback page: what each probe answers in either state, and where it refuses to listen."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from geostore.daemon.metrics import Metrics, Page
from geostore.errors import InvalidInput


def get(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_probes_say_no_when_it_is_not_well() -> None:
    """200 and 503 follow the state as it is asked for; a daemon that drains is alive and not ready."""
    state = {"live": True, "ready": True}
    page = Page("127.0.0.1:0", Metrics(), live=lambda: state["live"], ready=lambda: state["ready"])
    try:
        seen = []
        for live, ready in ((True, True), (True, False), (False, False)):
            state.update(live=live, ready=ready)
            seen.append((get(page.address, "/livez"), get(page.address, "/readyz"), get(page.address, "/metrics")))
        assert seen == [(200, 200, 200), (200, 503, 200), (503, 503, 200)]
    finally:
        page.close()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.7:80", "127.0.0.1", "127.0.0.1:http"])
def test_the_page_is_for_this_machine_alone(address: str) -> None:
    """Any address but a loopback one with a port is refused by its value."""
    with pytest.raises(InvalidInput, match="loopback"):
        Page(address, Metrics(), live=bool, ready=bool)
