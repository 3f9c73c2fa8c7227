"""The commands on a real store, run as a user runs them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from geostore import exit_codes
from geostore.cli.app import app
from geostore.connection import connect
from geostore.errors import KINDS


def test_help_imports_nothing_heavy():
    """`geostore --help` is quick: in a fresh process it loads neither torch nor rasterio, matplotlib, zmq or pandas."""
    code = (
        "import sys\nfrom geostore.cli import main\nsys.argv = ['geostore', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'rasterio', 'matplotlib', 'zmq', 'xarray', 'numpy', 'deltalake', 'lmdb'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ingest" in done.stdout


def test_every_error_kind_has_an_exit_code_with_a_meaning():
    """The table of exit codes covers the error tree and nothing else, by comparing the two."""
    assert set(exit_codes.CODES) == set(KINDS)
    assert set(exit_codes.CODES.values()) <= set(exit_codes.MEANINGS)


def test_ingest_again_changes_nothing(run, world):
    """The same scenes again are counted as unchanged, through the command."""
    again = run("ingest", world.scenes, "--store", world.store, "-c", world.collection, "--json")
    assert (again.code, again.json["scenes"], again.json["unchanged"]) == (0, 0, 6)


def test_a_collection_in_the_store_needs_no_file(run, world):
    """`--collection NAME`, and no collection at all where the store has one, find the stored one."""
    by_name = run("ingest", world.scenes, "--store", world.store, "-c", "meadow", "--json")
    left_out = run("ingest", world.scenes, "--store", world.store, "--json")
    assert by_name.json["unchanged"] == left_out.json["unchanged"] == 6


def test_a_misspelt_collection_is_told_those_of_the_store(run, world):
    """Where no file, preset or collection has the name, the store's own names are said beside the presets."""
    done = run("ingest", world.scenes, "-c", "meadw", "--store", world.store)
    assert done.code == exit_codes.NOT_FOUND
    assert "the store's are meadow" in done.err


def test_status_prints_both_ratios_and_its_json_adds_up(run, world):
    """No ratio without the other: text names both, and JSON ratios are quotients of its own bytes."""
    text = run("status", "--store", world.store, "--partitions").out
    assert "payloads alone" in text
    assert "everything durable" in text
    fields = run("status", "--store", world.store, "--partitions", "--json").json
    sizes = fields["bytes"]
    assert fields["ratio_durable"] == pytest.approx(sizes["source_lzw"] / sizes["durable"])
    assert fields["rasters"] == 12
    assert sum(p["bytes_lzw"] for p in fields["per_partition"]) == sizes["source_lzw"]


@pytest.mark.parametrize("verb", ["collections", "scenes", "rasters", "jobs", "status"])
def test_lists_answer_for_people_and_as_one_json_object(run, world, verb):
    """Every list is a table, or with --json one line that parses to an object."""
    assert run(verb, "--store", world.store).code == 0
    answer = run(verb, "--store", world.store, "--json")
    assert answer.code == 0, answer.err
    assert isinstance(json.loads(answer.out), dict)
    assert answer.out.count("\n") == 1


def test_upkeep_and_restore(run, world, tmp_path):
    """verify, compact, prune, rebuild, backup, restore, withdraw on a copy all succeed; what is restored is equal."""
    copy = tmp_path / "copy"
    shutil.copytree(world.store, copy)
    for verb in ("verify", "compact", "rebuild"):
        done = run(verb, "--store", copy, "--json")
        assert done.code == 0, (verb, done.err)
    assert run("backup", tmp_path / "kept", "--store", copy, "--json").code == 0
    assert run("restore", tmp_path / "kept", tmp_path / "again", "--json").code == 0
    before, after = (run("rasters", "--store", s, "--json").json for s in (copy, tmp_path / "again"))
    assert before == after
    scene = run("scenes", "--store", copy, "--json").json["scenes"][0]["id"]
    assert run("withdraw", scene, "--store", copy).code == 0
    assert len(run("scenes", "--store", copy, "--json").json["scenes"]) == 5
    assert run("prune", "--now", "--store", copy, "--json").code == 0
    checked = run("verify", "--store", copy)
    assert checked.code == 0
    assert checked.out.startswith("nothing is wrong: read ")


def test_verify_leaves_with_5_and_names_the_damage(run, world, tmp_path):
    """One flipped byte in a table file is found: exit code 5 and a finding in the answer."""
    copy = tmp_path / "copy"
    shutil.copytree(world.store, copy)
    part = max(copy.rglob("*.parquet"), key=lambda p: p.stat().st_size)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 0xFF
    part.write_bytes(bytes(data))
    done = run("verify", "--store", copy, "--json")
    assert done.code == exit_codes.CORRUPT
    assert done.json["findings"]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["status"], 2, "invalid-input"),
        (["status", "--store", "nowhere"], 4, "not-found"),
        (["ingest", "nothing.tif", "--store", "{tmp}/s", "-c", "{collection}"], 2, "bad-scene"),
        (["ingest", "nothing.tif", "--store", "{tmp}/s", "-c", "no-such.toml"], 4, "not-found"),
        (["decode", "zzzzz", "--store", "{store}"], 4, "not-found"),
        (["decode", "u2pc0", "--store", "{store}", "--time", "1999"], 4, "not-found"),
        (["decode", "u2pc0", "--store", "{store}", "--time", "June"], 2, "invalid-input"),
        (["decode", "u2pc0", "--store", "{store}", "--bands", "purple"], 2, "band-mismatch"),
        (["decode", "--store", "{store}"], 2, "invalid-input"),
        (["decode", "u2pc0", "--store", "{store}", "--within", "ndvi"], 2, "invalid-input"),
        (["decode", "u2pc0", "--store", "{store}", "--within", "greenness=0.1"], 2, "invalid-input"),
        (["decode", "--area", "no.geojson", "--store", "{store}"], 4, "not-found"),
        (["backup", "x", "--option", "novalue", "--store", "{store}"], 2, "invalid-input"),
        (["config", "check", "--config", "no.toml"], 2, "invalid-input"),
        (["status", "--node", "tcp://127.0.0.1:1"], 6, "unreachable"),
        (["status", "--node", "127.0.0.1:7070"], 2, "invalid-input"),
        (["decode", "u2pc0", "--store", "{store}", "-o", "{tmp}"], 2, "invalid-input"),
        (["fit", "--steps", "-5", "--store", "{store}"], 2, "invalid-input"),
        (["fit", "--workers", "1000000", "--store", "{store}"], 2, "invalid-input"),
        (["status", "--store", "{store}", "--node", "tcp://127.0.0.1:1"], 2, "invalid-input"),
        (["label", "u2pc0@2020-05-03", "--time", "2020", "--store", "{store}"], 2, "invalid-input"),
    ],
)
def test_errors_are_one_line_with_kind_and_code(run, world, tmp_path, monkeypatch, arguments, code, kind):
    """Expected failures: the right exit code, one line on stderr that begins with the kind, nothing on stdout."""
    monkeypatch.setenv("GEOSTORE_DEADLINE_S", "2")
    monkeypatch.chdir(tmp_path)
    filled = [a.format(store=world.store, collection=world.collection, tmp=tmp_path) for a in arguments]
    done = run(*filled)
    assert done.err.startswith(f"{kind}: "), done.err
    assert (done.code, done.err.count("\n"), done.out) == (code, 1, "")


def test_debug_shows_the_error_itself(run):
    """--debug raises instead of printing one line."""
    with pytest.raises(KINDS["invalid-input"]):
        run("status", "--debug")


def test_settings_come_from_flags_over_environment_over_file(run, world, tmp_path, monkeypatch):
    """`config show` proves the order, with one setting given in all three places."""
    monkeypatch.chdir(tmp_path)
    Path("geostore.toml").write_text('store = "from-file"\nworkers = 3\n')
    assert run("config", "show", "--json").json["store"] == "from-file"
    monkeypatch.setenv("GEOSTORE_STORE", "from-environment")
    assert run("config", "show", "--json").json["store"] == "from-environment"
    shown = run("config", "show", "--store", "from-flag", "--json").json
    assert (shown["store"], shown["workers"]) == ("from-flag", 3)
    Path("other.toml").write_text("wrkers = 3\n")
    refused = run("config", "check", "--config", "other.toml")
    assert refused.code == 2
    assert "no setting 'wrkers'; the nearest is workers" in refused.err
    Path("other.toml").write_bytes(b"\xff\xfe")
    assert "'other.toml' is not TOML" in run("config", "check", "--config", "other.toml").err


def test_a_misspelt_variable_is_told_once_with_the_nearest_name(run, world, monkeypatch):
    """GEOSTORE_STROE is warned of on stderr; stdout is the answer alone, and what tests read is not warned of."""
    monkeypatch.setenv("GEOSTORE_STROE", "x")
    monkeypatch.setenv("GEOSTORE_DATA", "y")
    done = run("status", "--store", world.store, "--json")
    assert done.json["rasters"] == 12
    lines = [line for line in done.err.splitlines() if line.startswith("warning")]
    assert lines == ["warning: GEOSTORE_STROE in the environment is read by no setting; the nearest is GEOSTORE_STORE"]
    monkeypatch.chdir(world.store.parent)
    with pytest.warns(UserWarning, match="the nearest is GEOSTORE_STORE"), connect(world.store, readonly=True):
        pass


def test_a_store_on_the_command_line_wins_over_a_node_in_the_settings(run, world, monkeypatch):
    """GEOSTORE_NODE names a dead daemon; --store still answers."""
    monkeypatch.setenv("GEOSTORE_NODE", "tcp://127.0.0.1:1")
    assert run("status", "--store", world.store).code == 0


def test_keys_new_makes_a_pair_and_lets_the_client_in(run, tmp_path):
    """A server and a client key: files private, public keys 40 characters, the same name twice refused."""
    server = run("keys", "new", "server", "--keys", tmp_path / "k", "--json").json
    client = run("keys", "new", "anna", "--role", "write", "--keys", tmp_path / "k", "--json").json
    assert len(server["public_key"]) == len(client["public_key"]) == 40
    assert Path(client["file"]).stat().st_mode & 0o077 == 0
    assert (tmp_path / "k" / "clients" / "anna.toml").exists()
    assert run("keys", "new", "anna", "--keys", tmp_path / "k").code == 2


def test_an_interrupt_is_clean_and_says_how_to_go_on(world, tmp_path):
    """SIGINT in the middle of an ingest: exit code 130, one line, no traceback; the same command then completes."""
    code = (
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may ignore it
        "import geostore.ingest as i\nfrom geostore.cli import main\ntake = i.Intake.take\n"
        "def once(*a):\n    take(*a)\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "i.Intake.take = once\nmain()"
    )
    arguments = ["ingest", str(world.scenes), "--store", str(tmp_path / "s"), "-c", str(world.collection)]
    stopped = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert stopped.returncode == 128 + signal.SIGINT, stopped.stderr
    assert stopped.stderr.startswith("cancelled: interrupted")
    assert "Traceback" not in stopped.stderr
    done = subprocess.run(
        [sys.executable, "-m", "geostore.cli", *arguments, "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["scenes"] + json.loads(done.stdout)["unchanged"] == 6


def test_a_misspelt_setting_and_an_unusable_path_are_told(run, world, tmp_path):
    """The settings there are; the file that stands where a folder is wanted: one line each, exit code 2."""
    (tmp_path / "c.toml").write_text('stroe = "x"\n')
    misspelt = run("status", "--config", tmp_path / "c.toml")
    assert misspelt.code == 2
    assert "no setting 'stroe'; the nearest is store; there are " in misspelt.err
    (tmp_path / "c.toml").write_text('device = "tpu"\n')
    elsewhere = run("config", "check", "--config", tmp_path / "c.toml")
    assert elsewhere.code == 2
    assert "setting device = 'tpu': Input should be 'auto', 'cpu' or 'cuda'" in elsewhere.err
    (tmp_path / "file").write_text("")
    unusable = run("report", "--store", world.store, "-o", tmp_path / "file")
    assert unusable.code == 2
    assert unusable.err.startswith("invalid-input: ")
    assert str(tmp_path / "file") in unusable.err


def test_every_verb_answers_in_json_and_takes_the_common_flags():
    """Each command, of groups too, has --json, --store, --node, --config and the keys, by asking the program itself."""
    asked = {"--json", "--store", "--node", "--config", "--client-key", "--server-key", "--debug"}
    for name, command in _commands("geostore", get_command(app)):
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert options >= asked or name in ("geostore demo",), (name, asked - options)
        assert "--json" in options, name


def _commands(name, command):
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    for word, each in (inner or {}).items():
        yield from _commands(f"{name} {word}", each)
