"""Every limit and default a process runs with: one frozen table, read once and handed down."""

from __future__ import annotations

import difflib
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from geostore.errors import InvalidInput

PREFIX = "GEOSTORE_"
_TESTS = ("GEOSTORE_DATA", "GEOSTORE_GOLDEN")  # what the tests and benches read
_GUIDE = "see docs/guides/settings.md"


class Settings(BaseSettings):
    """Settings from flags, else `GEOSTORE_*` in the environment, else `geostore.toml`, else the default here."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", toml_file="geostore.toml")

    store: str = Field("", description="Path or URL of the store.")
    node: str = Field("", description="Address of a daemon, tcp://host:port, instead of a store.")
    collection: str = Field("", description="Collection used where a command names none.")
    listen: str = Field("tcp://127.0.0.1:7070", description="Address the daemon answers on.")
    http: str = Field("127.0.0.1:7071", description="Loopback address of /livez, /readyz and /metrics.")
    insecure: bool = Field(False, description="Answer without CURVE on addresses that are not loopback.")
    keys: Path | None = Field(None, description="Folder with the daemon's CURVE key and the client keys it knows.")
    client_key: Path | None = Field(None, description="The client's CURVE secret key file.")
    server_key: str = Field("", description="The daemon's public CURVE key, 40 characters.")
    workers: int = Field(0, ge=0, le=256, description="Fit workers; 0 means one for each core.")
    fit_steps: int = Field(1500, ge=0, le=1_000_000, description="Optimiser steps per partition at most.")
    fit_seconds: float | None = Field(None, gt=0, description="Wall-clock limit per partition while fitting.")
    bases: Path | None = Field(
        None, description="Folder of bases of your own, which fits share before those that ship."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    text_encoder: str = Field("", description="What `words` are compared by; the best installed, if empty.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda.")
    scan: Literal["compiled", "numpy", "faiss"] = Field("compiled", description="What compares signatures in a search.")
    threads: int = Field(2, ge=1, le=256, description="Handler threads of the daemon.")
    header_bytes_max: int = Field(65_536, ge=1024, description="Largest header frame.")
    chunk_bytes: int = Field(1_048_576, ge=4096, description="Bytes in one chunk of a reply or upload.")
    credit: int = Field(8, ge=1, le=64, description="Chunks a sender may have under way to one reader.")
    upload_bytes_max: int = Field(2**31, ge=2**20, description="Largest upload of one request.")
    reply_bytes_max: int = Field(2**25, ge=2**20, description="Replies held in memory for slow readers, together.")
    spool_bytes_max: int = Field(2**32, ge=0, description="Replies held in temporary files beyond that, together.")
    decode_bytes_max: int = Field(2**26, ge=2**25, description="Pixels and masks in one decode of several rasters.")
    decode_threads: int = Field(0, ge=0, le=256, description="Threads that decode; 0 means one for each core.")
    answers_bytes_max: int = Field(2**24, ge=0, description="Small answers of reads, kept until the store changes.")
    inflight_max: int = Field(256, ge=1, description="Requests one client may have under way.")
    queue_max: int = Field(4096, ge=1, description="Requests waiting in the daemon.")
    deadline_s: float = Field(60.0, gt=0, le=86_400, description="Deadline of a request that names none.")
    drain_s: float = Field(30.0, ge=0, description="Time given to running work at SIGTERM.")
    view_bytes: int = Field(2**28, ge=2**20, description="First size of the LMDB view; it grows when full.")
    disk_reserve: float = Field(0.02, ge=0, lt=0.5, description="Share of the disk below which writes are refused.")
    vacuum_days: int = Field(7, ge=7, description="Days a superseded table file is kept.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def load(cls, file: Path | None = None, **flags: Any) -> Settings:
        """Settings with `flags` that are not None on top; `file` replaces ./geostore.toml.

        Raises:
            InvalidInput: a name is unknown, a value is out of its range, or the file is missing or not TOML.
        """
        if file is not None and not file.is_file():
            raise InvalidInput(f"no settings file {str(file)!r}; give --config a TOML file, or leave it out")
        given = {k: v for k, v in flags.items() if v is not None}
        try:
            return cls._read(file, given)
        except ValidationError as error:
            raise InvalidInput(_told(error)) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            where = str(file or cls.model_config.get("toml_file"))
            raise InvalidInput(f"the settings file {where!r} is not TOML: {error}; {_GUIDE}") from error

    @classmethod
    def _read(cls, file: Path | None, given: Mapping[str, Any]) -> Settings:
        if file is None:
            return cls(**given)

        class _FromFile(cls):  # type: ignore[misc, valid-type]
            model_config = SettingsConfigDict(toml_file=file)

        loaded: Settings = _FromFile(**given)
        return loaded


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A line for each GEOSTORE_* variable that no setting reads, with the nearest that one does."""
    known = [name.upper() for name in Settings.model_fields]
    read = {*(PREFIX + name for name in known), *_TESTS}
    unread = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in read]
    return [
        f"{name} in the environment is read by no setting{_nearest(name.upper().removeprefix(PREFIX), known, PREFIX)}"
        for name in unread
    ]


def warn_of_unknown_variables(environment: Mapping[str, str]) -> None:
    """A Python warning for each of `unknown_variables`; shown once by default."""
    for line in unknown_variables(environment):
        warnings.warn(line, stacklevel=2)


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; the nearest is {prefix}{near[0]}" if near else f"; {_GUIDE}"


def _told(error: ValidationError) -> str:
    """The first thing that is wrong, on one line; keys are not repeated."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        names = sorted(Settings.model_fields)
        return f"no setting {where!r}{_nearest(where, names)}; there are {', '.join(names)}"
    seen = "" if "key" in where else f" = {first['input']!r}"
    return f"setting {where}{seen}: {first['msg']}; {_GUIDE}"
