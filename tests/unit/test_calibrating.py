"""``fleet calibrate``: what it prints, what it makes of a policy's text, and what it refuses."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from fleet_console.commands.policy_text import with_escalation
from fleet_console.errors import ConsoleError
from fleet_protocol.calibration import calibrate, parse
from fleet_protocol.escalation import Budget, Escalation
from fleet_protocol.policy import parse as parse_policy
from tests.support.fleet_server import fleet
from use_cases.water_network import models_folder

MODEL = models_folder() / "pressure_leak"
DIGEST = hashlib.sha256((MODEL / "manifest.json").read_bytes()).hexdigest()
TABLE = Escalation(model_sha256="0" * 64, temperature=1.5, threshold=0.9, alpha=0.05, delta=0.1, n_cal=300)

POLICY = """# What a chamber does.
format = 1
name = "leak"
version = "1"
release = 1     # only grows
model = "pressure_leak"

[[rules]]
name = "leak"   # the one that matters
when = "score > 0.5"
outcome = "event"
text = "release = 7, and [escalation]"
"""
OLD_TABLE = f"""
[escalation]
model_sha256 = "{"a" * 64}"
temperature = 1.0
threshold = 0.5
alpha = 0.2
delta = 0.2
n_cal = 7
expires = 2027-06-30
audit_share = 0.05
deadline_s = 2.5

[escalation.budget]
per_hour = 6.0
burst = 3
"""


def records(folder: Path, rng: random.Random, *, informative: bool = True) -> Path:
    """Decisions of a model that is surer where it is right, or of one whose sureness says nothing."""
    lines = ["scenario,day,confidence,correct,gateway"]
    for scenario in range(800):
        confidence = rng.uniform(0.5, 1.0)
        wrong = 2 * (1 - confidence) ** 2 if informative else 0.2
        lines.append(f"s{scenario},9,{confidence:.5f},{int(rng.random() > wrong)},gw-1")
    file = folder / "records.csv"
    file.write_text("\n".join(lines))
    return file


def policy_file(folder: Path, text: str = POLICY) -> Path:
    file = folder / "leak.toml"
    file.write_text(text)
    return file


class TestCommand:
    def test_it_writes_the_next_release_with_what_it_learned(self, tmp_path: Path) -> None:
        given, policy = records(tmp_path, random.Random(1)), policy_file(tmp_path)
        done = fleet("calibrate", given, "--policy", policy, "--model", MODEL, "--expires", "2027-06-30")
        assert (done.returncode, done.stderr) == (0, "")
        assert "release 2" in done.stdout
        assert "drift" in done.stdout
        learned = calibrate(parse(given.read_text().splitlines()), 0.05, 0.1)
        made = parse_policy(policy.read_bytes())
        assert (made.release, made.version) == (2, "2")
        assert made.escalation is not None
        assert made.escalation.model_sha256 == DIGEST
        assert made.escalation.threshold == learned.threshold
        assert made.escalation.temperature == learned.temperature
        assert (made.escalation.n_cal, str(made.escalation.expires)) == (learned.n_cal, "2027-06-30")
        assert {path.name for path in tmp_path.iterdir()} == {"leak.toml", "records.csv"}

    def test_calibrated_again_it_keeps_what_the_operator_set(self, tmp_path: Path) -> None:
        given, policy = records(tmp_path, random.Random(1)), policy_file(tmp_path, POLICY + OLD_TABLE)
        out = tmp_path / "new.toml"
        done = fleet(
            "calibrate", given, "--policy", policy, "--model", MODEL, "--alpha", "0.1", "--out", out, "--json"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert policy.read_text() == POLICY + OLD_TABLE
        made = parse_policy(out.read_bytes()).escalation
        assert made is not None
        assert (made.alpha, made.delta) == (0.1, 0.1)
        assert made.budget == Budget(per_hour=6.0, burst=3)
        assert (made.audit_share, made.deadline_s, str(made.expires)) == (0.05, 2.5, "2027-06-30")
        told = json.loads(done.stdout)
        assert told["threshold"] == made.threshold
        assert told["kept"] > told["wrong"]

    def test_where_nothing_can_be_kept_it_says_so_and_everything_is_escalated(self, tmp_path: Path) -> None:
        given = records(tmp_path, random.Random(1), informative=False)
        policy = policy_file(tmp_path)
        done = fleet("calibrate", given, "--policy", policy, "--model", MODEL)
        assert done.returncode == 0
        assert "No threshold found" in done.stdout
        assert "escalates everything" in done.stdout
        made = parse_policy(policy.read_bytes()).escalation
        assert made is not None
        assert made.threshold > 1.0

    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("--alpha", "0", "between 0 and 1"),
            ("--delta", "1", "between 0 and 1"),
            ("--model", str(models_folder() / "flow_day"), "policy leak is for model pressure_leak"),
            ("--model", "nowhere", "cannot read nowhere/manifest.json"),
            ("--out", "nowhere/leak.toml", "cannot write nowhere/leak.toml"),
        ],
    )
    def test_what_cannot_be_done_is_refused_and_the_policy_untouched(
        self, tmp_path: Path, option: str, value: str, expected: str
    ) -> None:
        given, policy = records(tmp_path, random.Random(1)), policy_file(tmp_path)
        done = fleet("calibrate", given, "--policy", policy, "--model", MODEL, option, value)
        assert done.returncode == 1
        assert expected in done.stderr
        assert policy.read_text() == POLICY

    def test_bad_records_are_refused_by_line(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.csv"
        bad.write_text("scenario,day,confidence,correct\na,1,0.5,1\na,1,0.5,1\n")
        done = fleet("calibrate", bad, "--policy", policy_file(tmp_path), "--model", MODEL)
        assert done.returncode == 1
        assert "line 3: scenario a has day 1 twice" in done.stderr


class TestText:
    def test_all_but_release_version_and_table_stays(self) -> None:
        made = with_escalation(POLICY, TABLE)
        expected = POLICY.replace('version = "1"', 'version = "2"').replace("release = 1 ", "release = 2 ")
        assert made.startswith(expected)
        assert parse_policy(made.encode()).escalation == TABLE

    def test_a_version_of_its_own_stays(self) -> None:
        made = parse_policy(with_escalation(POLICY.replace('"1"', '"spring"'), TABLE).encode())
        assert (made.version, made.release) == ("spring", 2)

    def test_an_old_table_goes_wherever_it_stands(self) -> None:
        head, rules = POLICY.split("\n[[rules]]")
        made = with_escalation(f"{head}{OLD_TABLE}\n[[rules]]{rules}", TABLE)
        assert parse_policy(made.encode()).escalation == TABLE
        assert made.count("[escalation") == 2  # The table, and the text that speaks of one.

    @pytest.mark.parametrize(
        "text",
        [
            POLICY.replace("release = 1 ", '"release" = 1 '),
            POLICY.replace("[[rules]]", "escalation.temperature = 1\n[[rules]]"),
        ],
    )
    def test_a_spelling_that_is_not_understood_is_refused(self, text: str) -> None:
        with pytest.raises((ConsoleError, ValueError)):
            with_escalation(text, TABLE)
