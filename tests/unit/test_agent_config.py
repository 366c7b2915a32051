"""The configuration: what is read, and that every mistake is named with its place."""

from pathlib import Path

import pytest

from edge_agent.config import Modbus, Replay, load
from edge_agent.errors import ConfigError
from fleet_protocol.manifest import Runtime

GOOD = """\
device = "gw-01"
data = "data"
time_factor = 60

[broker]
host = "broker.example"
ca = "ca.pem"
certificate = "cert.pem"
key = "/etc/argan/key.pem"

[[sensors]]
kind = "modbus"
name = "plc"
host = "10.0.0.7"
[[sensors.registers]]
metric = "pressure"
unit = "m"
address = 0
[[sensors.registers]]
metric = "flow"
address = 2
type = "int16"

[[sensors]]
kind = "replay"
name = "recording"
path = "flow.csv"
interval_s = 0.5
[sensors.columns]
inflow = "Flow"

[[models]]
folder = "models/leak"
runtime = "litert"
"""


def config(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    return file


def test_everything_is_read_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    read = load(config(tmp_path, GOOD))
    assert (read.device, read.data, read.profile) == ("gw-01", tmp_path / "data", "generic")
    assert (read.broker.port, read.broker.ca) == (8883, tmp_path / "ca.pem")
    assert read.broker.key == Path("/etc/argan/key.pem")
    plc, recording = read.sensors
    assert isinstance(plc, Modbus)
    assert plc.metrics == ("pressure", "flow")
    assert isinstance(recording, Replay)
    assert recording.path == tmp_path / "flow.csv"
    assert read.models[0].runtime is Runtime.LITERT
    assert read.spool.max_bytes is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('device = "gw-01"', 'device = "GW 01"', r"\[device\]"),
        ('device = "gw-01"', "", "missing required field `device`"),
        ("time_factor = 60", "time_factor = 0", r"\[time_factor\]"),
        ("time_factor = 60", "colour = 1", "unknown field `colour`"),
        ('host = "10.0.0.7"', "", r"\[sensors\[0\]\] .*missing required field `host`"),
        ("address = 2", "address = 70000", r"\[sensors\[0\].registers\[1\].address\]"),
        ("address = 2", 'address = 65535\nword_order = "big"', None),
        ('type = "int16"', 'type = "int17"', "int17"),
        ("address = 0", "address = 65535", "ends beyond register 65535"),
        ("address = 0", "address = 0\nscale = inf", "must be finite"),
        ('kind = "replay"', 'kind = "csv"', "csv"),
        ('inflow = "Flow"', 'flow = "Flow"', "metric 'flow' is measured twice"),
        ('name = "recording"', 'name = "plc"', "two sensors are named 'plc'"),
        ("interval_s = 0.5", "", "give either 'interval_s' or 'time_column'"),
        ('"flow.csv"', '"flow.xlsx"', "must end in .csv or .parquet"),
        ('inflow = "Flow"', 'inflow = "Flow"\n[sensors.units]\nx = "m"', "'units' names 'x'"),
        ('folder = "models/leak"', "folder = 3", r"\[models\[0\].folder\]"),
        ('folder = "models/leak"', "folder = [", "no TOML"),
    ],
)
def test_a_mistake_is_named_with_file_and_place(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    assert old in GOOD
    file = config(tmp_path, GOOD.replace(old, new, 1))
    if said is None:
        load(file)
        return
    with pytest.raises(ConfigError, match=said) as refused:
        load(file)
    assert str(refused.value).startswith(str(file))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / "none.toml")


def test_too_many_metrics_are_refused(tmp_path: Path) -> None:
    many = "".join(f'm{number} = "x"\n' for number in range(250))
    sensors = "".join(
        f'[[sensors]]\nkind = "replay"\nname = "s{n}"\npath = "x.csv"\ninterval_s = 1\n[sensors.columns]\n'
        + many.replace("m", f"m{n}_")
        for n in range(3)
    )
    with pytest.raises(ConfigError, match="at most 500"):
        load(config(tmp_path, GOOD + sensors))
