"""Loaded first by every Python process of an agent under test: see tests.support.interposer."""

import os

from tests.support.interposer import interpose

if "ARGAN_CUT_ROOT" in os.environ:
    interpose(os.environ["ARGAN_CUT_ROOT"], os.environ["ARGAN_CUT_CONTROL"], group=True)
