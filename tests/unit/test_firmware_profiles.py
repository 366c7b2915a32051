"""The profiles that are shipped, the schema they follow, and what is said of one that does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.inference.interpreter import THREADS
from firmware_profiles.__main__ import main
from firmware_profiles.errors import ProfileInvalid, ProfileUnknown
from firmware_profiles.schema import GENERIC, Rtc, StorageKind, load, names, parse
from fleet_protocol.manifest import Runtime

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "firmware-profile.schema.json"
NAMES = (
    "generic",
    "generic-x86-64",
    "generic-x86-64-swupdate",
    "intel-nuc",
    "jetson-orin-nano",
    "raspberry-pi-5",
    "raspberry-pi-5-rauc",
    "raspberry-pi-zero-2-w",
    "simulated",
    "tflite-64",
)
GOOD = (ROOT / "firmware_profiles" / "raspberry-pi-5.toml").read_text()


def test_these_boards_are_described() -> None:
    assert names() == NAMES
    assert load(GENERIC).cpu.machines == ()


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_consistent(name: str) -> None:
    profile = load(name)
    limits = profile.limits
    assert limits.threads.value >= THREADS  # what the backends compute with
    assert 1 << 20 <= limits.spool_mib.value << 20 <= 2**40  # what [spool] takes
    assert limits.least_flush_interval_s.value <= 3600.0
    assert all(profile.sources[figure.source] for figure in profile.figures().values())
    assert {"cpu.cores", "memory.installed_mib", "limits.memory_mib"} <= profile.figures().keys()
    assert (profile.watchdog is not None) == ("watchdog.longest_s" in profile.figures())


def test_boards_on_cards_are_spared_and_distrust_their_clock() -> None:
    for profile in map(load, NAMES):
        if profile.storage.kind is StorageKind.SD:
            assert profile.limits.least_flush_interval_s.value >= 5.0
            assert profile.rtc.may_stop
    assert not Rtc.BATTERY.may_stop
    assert not Rtc.UNKNOWN.may_stop


def test_a_small_board_leaves_out_what_is_too_large_for_it() -> None:
    assert load("raspberry-pi-zero-2-w").runtimes.allowed == (Runtime.LITERT,)
    assert load("tflite-64").runtimes.allowed == (Runtime.TFLITE,)
    assert "numpy < 2" in load("tflite-64").runtimes.needs[0]


@pytest.mark.parametrize("name", ["", "raspberry-pi-6", "../generic", "generic.toml", "x" * 500])
def test_an_unknown_name_lists_those_there_are(name: str) -> None:
    with pytest.raises(ProfileUnknown, match=r"there are: generic, .*tflite-64") as refused:
        load(name)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format = 1", "format = 2", r"Expected `int` <= 1 - at `\$.format`"),
        ("format = 1", "format = 1\ncolour = 3", "unknown field `colour`"),
        ("format = 1\n", "", "missing required field `format`"),
        ('name = "raspberry-pi-5"', 'name = "raspberry-pi-6"', "'name' is 'raspberry-pi-6'; it must be"),
        ('name = "raspberry-pi-5"', 'name = "Pi 5"', r"regex.*\$.name"),
        ('rtc = "optional-battery"', 'rtc = "maybe"', r"'maybe' - at `\$.rtc`"),
        ('"i2c"', '"i3c"', "'i3c'"),
        ("cores = {", "kernels = {", "unknown field `kernels`"),
        ("value = 4,", "value = 0,", r">= 1 - at `\$.cpu.cores.value`"),
        ("value = 4,", 'value = "4",', r"got `str` - at `\$.cpu.cores.value`"),
        ("value = 4, ", "", r"missing required field `value` - at `\$.cpu.cores`"),
        ('basis = "stated", source = "brief"', 'basis = "rumored", source = "brief"', "'rumored'"),
        ('basis = "stated", source = "brief"', 'basis = "stated"', "missing required field `source`"),
        ('source = "brief"', 'source = "leaflet"', r"\[cpu.cores\] rests on source 'leaflet'"),
        ("[sources]", '[sources]\nrumor = "heard"', "has 'rumor', which no figure names"),
        ('["litert", "openvino"]', '["litert", "litert"]', "names a runtime twice"),
        ('["litert", "openvino"]', "[]", "length >= 1"),
        ('["litert", "openvino"]', '["torch"]', "'torch'"),
        ("memory_mib = { value = 256", "memory_mib = { value = 600", "half of the memory"),
        ("spool_mib = { value = 256", "spool_mib = { value = 9000", "half of the storage"),
        ("threads = { value = 1", "threads = { value = 5", "more threads than cores"),
        ("value = 5.0", "value = 0.0", r"\$.limits.least_flush_interval_s.value"),
        ("value = 5.0", "value = nan", r"\$.limits.least_flush_interval_s.value"),
        ("[watchdog]", '[[accelerators]]\nname = "x"\nruntimes = ["tflite"]\n[watchdog]', "not allowed"),
        ("format = 1", "format = ", "no TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, said: str) -> None:
    assert old in GOOD
    parse("raspberry-pi-5", GOOD)
    with pytest.raises(ProfileInvalid, match=said) as refused:
        parse("raspberry-pi-5", GOOD.replace(old, new, 1))
    assert str(refused.value).startswith("raspberry-pi-5: ")


def test_the_published_schema_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert SCHEMA.read_text() == printed, "python -m firmware_profiles schema > " + str(SCHEMA)
    assert "\\Z" not in printed  # a letter to JavaScript, and no profile would fit
    assert main([]) == main(["explode"]) == 2


def test_an_installed_wheel_brings_the_profiles(tmp_path: Path) -> None:
    """Built as it is shipped, and read from there and not from this folder."""
    build = (
        "import sys; from hatchling.builders.wheel import WheelBuilder\n"
        "print(next(WheelBuilder('.').build(directory=sys.argv[1])))\n"
    )
    built = subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wheel = built.stdout.strip()
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from firmware_profiles import schema\n"
        "assert schema.__file__.startswith(sys.argv[1])\n"
        "print([schema.load(name).name for name in schema.names()])\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, wheel],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{list(NAMES)}\n", "")
