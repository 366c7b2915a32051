"""Which artifact may run on which board, and what is said where it may not."""

import pytest

from firmware_profiles.compatibility import problems
from firmware_profiles.schema import load, names
from fleet_protocol.manifest import Runtime
from fleet_protocol.targets import ImageFormat, Requirements

ZERO = "raspberry-pi-zero-2-w"
TOO_SMALL = (
    f"It needs 513 MiB of memory, and {ZERO} promises 512 MiB; one that asks for at most 512 MiB would fit."
)
ANY = Requirements()
LITERT = Requirements(runtimes=(Runtime.LITERT,))
OPENVINO = Requirements(runtimes=(Runtime.OPENVINO,))
TFLITE = Requirements(runtimes=(Runtime.TFLITE,))
LITE = Requirements(runtimes=(Runtime.LITERT, Runtime.TFLITE))
ARM = Requirements(machines=("aarch64",))
LARGE = Requirements(min_memory_mib=2000)
FOR_PI = Requirements(profiles=("raspberry-pi-5", "raspberry-pi-zero-2-w"))
FOR_RAUC = Requirements(image=ImageFormat.RAUC)
FOR_SWUPDATE = Requirements(image=ImageFormat.SWUPDATE)

FITS = {
    "generic": (LITERT, OPENVINO, TFLITE, LITE, ARM),
    "generic-x86-64": (LITERT, OPENVINO, LITE, LARGE),
    "generic-x86-64-swupdate": (LITERT, OPENVINO, LITE, LARGE, FOR_SWUPDATE),
    "intel-nuc": (LITERT, OPENVINO, LITE, LARGE),
    "jetson-orin-nano": (LITERT, OPENVINO, LITE, ARM, LARGE),
    "raspberry-pi-5": (LITERT, OPENVINO, LITE, ARM, FOR_PI),
    "raspberry-pi-5-rauc": (LITERT, OPENVINO, LITE, ARM, FOR_RAUC),
    "raspberry-pi-zero-2-w": (LITERT, LITE, ARM, FOR_PI),
    "simulated": (LITERT, OPENVINO, TFLITE, LITE, ARM),
    "tflite-64": (TFLITE, LITE, ARM),
}
ALL = (LITERT, OPENVINO, TFLITE, LITE, ARM, LARGE, FOR_PI, FOR_RAUC, FOR_SWUPDATE)


@pytest.mark.parametrize("requires", ALL)
@pytest.mark.parametrize("name", names())
def test_what_fits_where(name: str, requires: Requirements) -> None:
    assert (problems(requires, load(name)) == []) == (requires in FITS[name])


@pytest.mark.parametrize("name", names())
def test_what_asks_for_nothing_fits_everywhere(name: str) -> None:
    assert problems(ANY, load(name)) == []
    assert problems(Requirements(model="leak"), load(name)) == []


@pytest.mark.parametrize(
    ("requires", "sentence"),
    [
        (OPENVINO, f"It runs on openvino, and {ZERO} has litert; one with a variant for litert would fit."),
        (
            Requirements(machines=("x86_64", "riscv64")),
            f"It runs on x86_64 or riscv64 machines, and {ZERO} is aarch64; one built for aarch64 would fit.",
        ),
        (Requirements(min_memory_mib=513), TOO_SMALL),
        (
            Requirements(profiles=("intel-nuc",)),
            f"It is made for intel-nuc, not for {ZERO}; one that names {ZERO} would fit.",
        ),
    ],
)
def test_a_problem_says_why_and_what_would_fit(requires: Requirements, sentence: str) -> None:
    assert problems(requires, load(ZERO)) == [sentence]


def test_all_problems_are_said_at_once() -> None:
    requires = Requirements(
        profiles=("intel-nuc",),
        machines=("x86_64",),
        min_memory_mib=4096,
        runtimes=(Runtime.OPENVINO,),
    )
    assert len(problems(requires, load(ZERO))) == 4
    assert problems(requires, load("intel-nuc")) == []


def test_memory_just_enough_is_enough() -> None:
    assert problems(Requirements(min_memory_mib=512), load(ZERO)) == []
