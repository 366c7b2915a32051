"""The centre: takes in what devices report, keeps it, and shows it."""

from typing import Final

VERSION: Final = "0.1.0"
