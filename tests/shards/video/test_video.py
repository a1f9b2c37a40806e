"""PyAV and OpenCV are extras: nobody needs them but those who use a codec of videos."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import sys
sys.modules[sys.argv[1]] = None
import oxcart.shards.codec
from oxcart.shards.errors import ConfigError
try:
    import oxcart.shards.video
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["av", "cv2"])
def test_a_missing_package_is_one_line_that_says_what_to_install(package: str) -> None:
    run = subprocess.run([sys.executable, "-c", PROBE, package], capture_output=True, text=True, check=True)
    assert run.stdout == (
        f"codec video: needs the package {package}, which is not installed: pip install 'oxcart[video]'\n"
    )
