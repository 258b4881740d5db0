"""The product's settings on a data folder that goes with the test run."""

import atexit
import os
import tempfile

_data = tempfile.TemporaryDirectory(prefix="rasweb-test-")
atexit.register(_data.cleanup)
for _name in [name for name in os.environ if name.startswith("RASWEB_")]:
    del os.environ[_name]
os.environ |= {"RASWEB_DATA_DIR": _data.name, "RASWEB_DEBUG": "yes"}

from rasweb.settings import *  # noqa: E402, F403
from rasweb.settings import STATIC_ROOT  # noqa: E402

STATIC_ROOT.mkdir()

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

WHITENOISE_AUTOREFRESH = True  # each test's client would else index all static files
