import subprocess
import sys

from tests.product import ROOT

SCRIPT = """
import gc
from rasweb.loading import loading
try:
    with loading():
        assert not gc.isenabled()
        raise RuntimeError
except RuntimeError:
    pass
assert gc.isenabled()
assert gc.get_freeze_count() > 0
"""


def test_garbage_is_looked_for_again_after_loading_whatever_happens():
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, check=True)
