from __future__ import annotations

import stat
from pathlib import Path

import pytest
from wire_service import Echo

from geostore.errors import Forbidden, InvalidInput, NotFound
from geostore.query import messages
from geostore.query.auth import (
    ROLES,
    Keys,
    allow_client,
    allows,
    check_port,
    new_client_key,
    new_pair,
    new_server_key,
    read_pair,
)
from geostore.query.dealer import Dealer
from geostore.query.router import Router
from geostore.settings import Settings

SETTINGS = Settings(listen="tcp://127.0.0.1:0")
VERBS = {
    "read": messages.Status(),
    "write": messages.PutCollection(collection={}),
    "train": messages.Fit(),
    "admin": messages.Prune(),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    new_server_key(tmp_path)
    for role in ROLES:
        new_client_key(tmp_path, role, role)
    return tmp_path


@pytest.fixture
def router(folder):
    with Router(Echo(), SETTINGS, keys=Keys(folder)) as router:
        yield router


def enter(router, folder, name: str) -> Dealer:
    return Dealer(router.address, pair=read_pair(folder / f"{name}.key"), server_key=public(folder))


def public(folder) -> str:
    return read_pair(folder / "server.key").public


def test_key_files_are_for_their_owner_only(folder):
    """0600 files in 0700 folders; one that others can read is refused."""
    for file in folder.rglob("*.*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (folder / "read.key").chmod(0o644)
    with pytest.raises(Forbidden, match="chmod 600"):
        read_pair(folder / "read.key")


def test_keys_are_never_replaced_silently(folder):
    """Making a key that exists is refused and changes nothing."""
    before = (folder / "server.key").read_text()
    with pytest.raises(InvalidInput, match="exists and holds its public_key"):
        new_server_key(folder)
    with pytest.raises(InvalidInput, match="exists"):
        new_client_key(folder, "read", "admin")
    assert (folder / "server.key").read_text() == before
    assert Keys(folder).role_of(read_pair(folder / "read.key").public) == "read"


def test_a_secret_does_not_show_in_a_repr(folder):
    """Logs and tracebacks print key pairs without their secret."""
    pair = new_pair()
    assert pair.secret not in repr(pair)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_its_verbs_and_no_others(router, folder, role):
    """read < write < train < admin, verb by verb over a real CURVE connection."""
    with enter(router, folder, role) as dealer:
        for needed, request in VERBS.items():
            if allows(role, needed):
                assert dealer.ask(request).fields == {"verb": request.verb}
            else:
                with pytest.raises(Forbidden, match=f"needs role {needed}"):
                    dealer.ask(request)


def test_large_answers_cross_curve_unchanged(router, folder):
    """6 MiB in chunks under encryption."""
    with enter(router, folder, "read") as dealer:
        assert dealer.ask(messages.Decode(keys=[])).arrays[0][-1] == (3 * 2**20 - 1) % 65536


def test_an_unknown_key_is_forbidden(router, folder):
    """A pair the daemon was not told of: Forbidden, and soon."""
    stranger = Dealer(router.address, pair=new_pair(), server_key=public(folder))
    with stranger, pytest.raises(Forbidden, match="does not know this client's key"):
        stranger.ask(messages.Status())


def test_a_plain_client_is_refused(router):
    """Without CURVE nothing is answered; it must never slip in through a half-made configuration."""
    with Dealer(router.address) as dealer, pytest.raises(Forbidden, match="keys do not fit"):
        dealer.ask(messages.Status())


def test_the_wrong_server_key_is_refused(router, folder):
    """A client does not talk to a daemon that is not the one it was told of."""
    pair = read_pair(folder / "admin.key")
    misled = Dealer(router.address, pair=pair, server_key=new_pair().public, connect_s=2.0)
    with misled, pytest.raises(Forbidden, match="keys do not fit"):
        misled.ask(messages.Status())


def test_a_curve_client_at_a_plain_daemon_is_refused(folder):
    """The other mix-up ends in a clear error too."""
    plain = Router(Echo(), SETTINGS)
    with plain, enter(plain, folder, "admin") as dealer, pytest.raises(Forbidden, match="keys do not fit"):
        dealer.ask(messages.Status())


def test_a_client_let_in_or_put_out_later_counts_without_a_restart(folder):
    """Role files are read again when they change; driven by a clock of our own."""
    now = [0.0]
    keys = Keys(folder, now_s=lambda: now[0])
    pair = new_pair()
    assert keys.role_of(pair.public) is None
    allow_client(folder, "late", pair.public, "write")
    now[0] += 2
    assert keys.role_of(pair.public) == "write"
    (folder / "clients" / "late.toml").unlink()
    now[0] += 2
    assert keys.role_of(pair.public) is None


def test_a_broken_role_file_does_not_open_or_end_the_service(folder, caplog):
    """What was known stays, and the log says so."""
    now = [0.0]
    keys = Keys(folder, now_s=lambda: now[0])
    (folder / "clients" / "bad.toml").write_text("role = [")
    now[0] += 2
    assert keys.role_of(read_pair(folder / "read.key").public) == "read"
    assert "bad.toml" in caplog.text
    with pytest.raises(InvalidInput, match=r"bad\.toml"):
        Keys(folder)


def test_bad_keys_and_roles_are_named(tmp_path, folder):
    """Each wrong value in its message."""
    with pytest.raises(NotFound, match="geostore keys new"):
        Keys(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="role 'king'"):
        allow_client(folder, "x", new_pair().public, "king")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="40 characters"):
        allow_client(folder, "x", "short", "read")
    allow_client(folder, "twin", read_pair(folder / "read.key").public, "admin")
    with pytest.raises(InvalidInput, match="another client"):
        Keys(folder)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:99999", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://", "tcp://[::1]:-1"]
)
def test_a_port_that_does_not_exist_is_refused_on_both_sides(address):
    """ZeroMQ would listen on 99999 modulo 65536: the daemon and the client refuse it by its number."""
    with pytest.raises(InvalidInput, match="is no address"):
        check_port(address)
    with pytest.raises(InvalidInput, match="is no address"):
        Dealer(address, SETTINGS)
    for fine in ("tcp://127.0.0.1:0", "tcp://*:7070", "tcp://[::1]:65535", "ipc:///tmp/x"):
        check_port(fine)
