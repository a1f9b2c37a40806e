"""The directory of a run: its configuration, the code and data behind it, and whether a run may begin there.

config.yaml      the resolved configuration
run.json         git commit, versions, fingerprints of the datasets, ranks
metrics.jsonl    see train/report.py
checkpoints/     see train/checkpoint.py
loss.png samples.png samples/ report.md     of the last validation
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from oxcart.shards.errors import ConfigError
from oxcart.shards.files import write_file
from oxcart.train.checkpoint import find
from oxcart.train.config import CONFIG
from oxcart.train.report import METRICS

ABOUT = "run.json"
LIBRARIES = (
    "oxcart",
    "torch",
    "accelerate",
    "safetensors",
    "omegaconf",
    "numpy",
    "vector-quantize-pytorch",
    "transformers",
    "peft",
)


def check_free(run: Path) -> None:
    """Refuse a directory that holds a run.

    Raises:
        ConfigError: the directory holds a run.
    """
    if find(run) or (run / METRICS).exists():
        raise ConfigError(
            f"run.dir: {run} holds a run; pass --resume auto to continue it, or use another run.dir"
        )


def write_run(run: Path, config: str, about: Mapping[str, Any]) -> None:
    """Write configuration and circumstances; circumstances of earlier starts of the run are kept in
    `before`."""
    if (run / ABOUT).exists():
        earlier = json.loads((run / ABOUT).read_text(encoding="utf-8"))
        about = {**about, "before": [*earlier.pop("before", []), earlier]}
    for name, text in ((CONFIG, config), (ABOUT, json.dumps(about, indent=2) + "\n")):
        write_file(run / name, text.encode())


def circumstances(datasets: Mapping[str, str], world_size: int, device: str) -> dict[str, Any]:
    """Everything besides its configuration that shaped a run.

    Args:
        datasets: URL of each dataset -> its fingerprint.
        world_size: number of ranks.
        device: name of the device.
    """
    return {
        "git_commit": git_commit(),
        "versions": {name: version for name in LIBRARIES if (version := _version(name))},
        "python": platform.python_version(),
        "datasets": dict(datasets),
        "world_size": world_size,
        "device": device,
    }


def git_commit() -> str | None:
    """Commit of the checkout that this code runs from, with `-dirty` if it was changed; None outside of a
    checkout."""
    here = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
