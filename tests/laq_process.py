"""Trainings in processes of their own, with something done to them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tiny_laq import SMALL

AUGMENTED = (
    "augment.flip=true",
    "augment.reverse=true",
    "augment.shift=0.2",
    "augment.colour=0.3",
    "quantizer.replace_every=2",
    "train.schedule=cosine",
)
"""What a run is given that is to be exact in all of it."""
PATCHED = """
import os, signal, sys, torch
import torch.distributed as distributed
from oxcart.train.laq.config import laq_config
from oxcart.train.laq.task import train_laq
from oxcart.train.laq.task import LaqTask

original, original_loss = LaqTask.after_step, LaqTask.loss
"""
"""Begins a program that trains with something done to it."""


def started(program: list[str], *arguments: str, **place: str) -> subprocess.Popen[str]:
    """A process of a program."""
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **place},
    )


def ranks_of(count: int, program: list[str], *arguments: str) -> list[subprocess.Popen[str]]:
    """Processes of a program, as `torchrun --nproc-per-node COUNT` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    return [
        started(program, *arguments, **place, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(count)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and stderr of each."""
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def asked(kitchen: Path, run: Path, *more: str) -> list[str]:
    """Arguments of a small run."""
    given: Mapping[str, str] = {text.partition("=")[0]: text for text in (*SMALL, *more)}
    return [*given.values(), f"data.datasets=[{kitchen}]", f"run.dir={run}"]
