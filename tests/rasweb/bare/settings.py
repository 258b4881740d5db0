import os

from rasweb.settings import *  # noqa: F403

LOOPS = (("tests.rasweb.bare.tasks.look", 0.2),)
DRAIN_SECONDS = 2.0
ROOT_URLCONF = "tests.rasweb.bare.urls"
CANARY_SECONDS = HANG_SECONDS = float(os.environ.get("BARE_HANG_SECONDS", "60"))
