"""Who may ask what: CURVE keys as files, and the role each key has."""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import zmq
from zmq.utils import z85

from geostore.errors import Forbidden, GeostoreError, InvalidInput, NotFound
from geostore.keys import check_name
from geostore.query.messages import Role

ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may
ZAP_DOMAIN = "geostore"
RELOAD_S = 1.0
PORT_MAX = 65_535
_log = logging.getLogger(__name__)
LIBZMQ_OLDEST = (4, 3, 3)  # older ones overflow before authentication (CVE-2019-13132)


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, Z85 text of 40 characters each."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def allows(role: Role, wanted: Role) -> bool:
    """True if `role` may do what needs `wanted`: read < write < train < admin."""
    return ROLES.index(role) >= ROLES.index(wanted)


def new_pair() -> KeyPair:
    """A fresh key pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def new_server_key(folder: Path) -> KeyPair:
    """Make `folder/server.key`, the daemon's key pair; an existing one is refused, not replaced.

    Raises:
        InvalidInput: the file exists.
    """
    pair = new_pair()
    _write_private(folder / "server.key", _pair_toml(pair))
    return pair


def new_client_key(folder: Path, name: str, role: Role) -> KeyPair:
    """Make a client's key: `folder/clients/<name>.toml` lets it in, `folder/<name>.key` is for the client to keep.

    Raises:
        InvalidInput: the name, the role or an existing file.
    """
    check_name(name, "client")
    pair = new_pair()
    allow_client(folder, name, pair.public, role)
    _write_private(folder / f"{name}.key", _pair_toml(pair))
    return pair


def allow_client(folder: Path, name: str, public: str, role: Role) -> None:
    """Let the owner of the `public` key in as `name` with `role`, in `folder/clients/<name>.toml`."""
    check_name(name, "client")
    _check_role(role, name)
    _check_key(public, name)
    _write_private(folder / "clients" / f"{name}.toml", f'public_key = {_quoted(public)}\nrole = "{role}"\n')


def read_pair(path: Path) -> KeyPair:
    """The key pair in a `.key` file.

    Raises:
        NotFound: no such file.
        InvalidInput: it holds no key pair.
        Forbidden: others than its owner may read it.
    """
    fields = _read(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise Forbidden(f"{path} can be read by others; run `chmod 600 {path}`")
    public, secret = fields.get("public_key"), fields.get("secret_key")
    return KeyPair(_check_key(public, str(path)), _check_key(secret, str(path)))


class Keys:
    """The daemon's keys folder: its own pair, and the clients it lets in. Changes on disk count within a second."""

    def __init__(self, folder: Path, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self.server = read_pair(folder / "server.key")
        self._now_s = now_s
        self._lock = threading.Lock()
        self._read_s = now_s()
        self._stamp = self._stamps()
        self._roles = self._load()

    def role_of(self, public: str) -> Role | None:
        """The role of the client with this public key, or None: it is not let in."""
        with self._lock:
            if self._now_s() - self._read_s >= RELOAD_S:
                self._read_s = self._now_s()
                self._reload()
            return self._roles.get(public)

    def _reload(self) -> None:
        """Read the client files again if any changed; while one is broken, what was known stays."""
        try:
            stamp = self._stamps()
            if stamp != self._stamp:
                self._roles, self._stamp = self._load(), stamp
        except (GeostoreError, OSError) as error:
            _log.error("client keys not read again: %s", error)

    def _stamps(self) -> list[tuple[str, int, int]]:
        files = sorted((self.folder / "clients").glob("*.toml"))
        return [(f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files]

    def _load(self) -> dict[str, Role]:
        roles: dict[str, Role] = {}
        for file in sorted((self.folder / "clients").glob("*.toml")):
            fields = _read(file)
            public = _check_key(fields.get("public_key"), str(file))
            if public in roles:
                raise InvalidInput(f"{file} names a key that another client has; give each client its own")
            roles[public] = _check_role(fields.get("role"), str(file))
        return roles


class Zap:
    """Answers libzmq's question whether a client's key may connect (ZeroMQ RFC 27), in the thread that owns it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Keys) -> None:
        self._keys = keys
        self.refused = 0
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind("inproc://zeromq.zap.01")

    def answer(self) -> None:
        """Answer the one question that is waiting."""
        version, request, domain, _address, _identity, mechanism, *credentials = self.socket.recv_multipart()
        user = ""
        if domain == ZAP_DOMAIN.encode() and mechanism == b"CURVE" and len(credentials) == 1:
            user = z85.encode(credentials[0]).decode()
        if user and self._keys.role_of(user) is not None:
            answer = [b"200", b"OK", user.encode(), b""]
        else:
            self.refused += 1
            answer = [b"400", b"unknown key", b"", b""]
        self.socket.send_multipart([version, request, *answer])


def secure_server(socket: zmq.Socket[bytes], keys: Keys) -> None:
    """Make `socket` accept CURVE clients only, asking Zap about each.

    Raises:
        InvalidInput: libzmq is too old to be let near strangers.
    """
    if zmq.zmq_version_info() < LIBZMQ_OLDEST or not zmq.has("curve"):
        raise InvalidInput(f"libzmq {zmq.zmq_version()} has no safe CURVE; install pyzmq >= 26")
    socket.curve_server = True
    socket.curve_secretkey = keys.server.secret.encode()
    socket.curve_publickey = keys.server.public.encode()
    socket.zap_domain = ZAP_DOMAIN.encode()


def secure_client(socket: zmq.Socket[bytes], pair: KeyPair, server_key: str) -> None:
    """Make `socket` speak CURVE as `pair` to the daemon whose public key is `server_key`."""
    socket.curve_secretkey = pair.secret.encode()
    socket.curve_publickey = pair.public.encode()
    what = f"server_key, {len(server_key)} characters (the right one is `public_key` in the daemon's server.key)"
    socket.curve_serverkey = _check_key(server_key, what).encode()


def check_port(address: str) -> None:
    """Refuse a tcp address without a port, or with one that does not exist: ZeroMQ takes it modulo 65536.

    Raises:
        InvalidInput: so it is.
    """
    port = address.rpartition(":")[2]
    if address.startswith("tcp://") and port != "*" and not (port.isdecimal() and int(port) <= PORT_MAX):
        raise InvalidInput(
            f"{address!r} is no address (port {port!r}); use tcp://host:port, with a port up to {PORT_MAX}"
        )


def check_listen(listen: str, *, insecure: bool, has_keys: bool) -> None:
    """Refuse an address that strangers reach while nobody is asked for a key.

    Raises:
        InvalidInput: not tcp:// or ipc://, or such an address.
    """
    scheme, _, rest = listen.partition("://")
    if scheme not in ("tcp", "ipc") or not rest:
        raise InvalidInput(f"cannot listen on {listen!r}; use tcp://host:port or ipc://path")
    check_port(listen)
    host = rest.rpartition(":")[0].strip("[]")
    if scheme == "tcp" and not (has_keys or insecure or is_loopback(host)):
        raise InvalidInput(
            f"{listen} can be reached by others and there are no keys; run `geostore keys new` and name the folder "
            "with --keys, listen on 127.0.0.1, or state --insecure"
        )


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise NotFound(f"no key file {path}; make keys with `geostore keys new`") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a TOML key file: {error}") from error


def _check_key(text: object, where: str) -> str:
    if not isinstance(text, str) or len(text) != 40:
        raise InvalidInput(f"{where}: not a CURVE key; wanted 40 characters of Z85")
    try:
        z85.decode(text.encode())
    except (KeyError, ValueError, UnicodeError) as error:
        raise InvalidInput(f"{where}: not a CURVE key; wanted 40 characters of Z85") from error
    return text


def _check_role(role: object, where: str) -> Role:
    for known in ROLES:
        if role == known:
            return known
    raise InvalidInput(f"{where}: role {role!r}; use one of {', '.join(ROLES)}")


def _quoted(text: str) -> str:
    return f"'{text}'"  # Z85 has neither the single quote nor the backslash


def _pair_toml(pair: KeyPair) -> str:
    return f"public_key = {_quoted(pair.public)}\nsecret_key = {_quoted(pair.secret)}\n"


def _write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInput(
            f"{path} exists and holds its public_key; remove it only if the key shall be replaced"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
