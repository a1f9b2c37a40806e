"""What other tools say of pairs of frames; run by `bench/audit.py` with the interpreter that has them.

    python bench/audit_peers.py FRAMES.npz OUT.json

FRAMES.npz holds uint8 frames [n, H, W, 3] under several names. OUT.json gets, for each tool that can be
imported, its hashes of every frame (hexadecimal, each tool's own default of 64 bits), so that distances are
counted in one place.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

warnings.filterwarnings("ignore")


def main() -> None:
    """Hash every frame with every tool that is there."""
    frames, out = sys.argv[1:]
    found: dict[str, dict[str, list[list[str]]]] = {}
    with np.load(frames, allow_pickle=False) as file:
        for tool, make in (
            ("imagehash", imagehash),
            ("imagededup", imagededup),
            ("cleanvision", cleanvision),
        ):
            try:
                hashes = make()
            except ImportError as error:
                print(f"{tool}: not installed ({error})", file=sys.stderr)
                continue
            found[tool] = {name: [hashes(frame) for frame in file[name]] for name in file.files}
    Path(out).write_text(json.dumps(found))


def imagehash() -> Callable[[Any], list[str]]:
    """imagehash.phash at its default, 8x8."""
    import imagehash

    return lambda frame: [str(imagehash.phash(Image.fromarray(frame)))]


def imagededup() -> Callable[[Any], list[str]]:
    """imagededup's PHash."""
    from imagededup.methods import PHash

    hasher = PHash(verbose=False)
    return lambda frame: [hasher.encode_image(image_array=frame)]


def cleanvision() -> Callable[[Any], list[str]]:
    """What cleanvision hashes for near duplicates: whash and phash, either of which must be identical."""
    import cleanvision.utils.utils  # noqa: F401
    import imagehash

    def hashes(frame: Any) -> list[str]:
        image = Image.fromarray(frame)
        return [str(imagehash.whash(image, hash_size=8)), str(imagehash.phash(image, hash_size=8))]

    return hashes


if __name__ == "__main__":
    main()
