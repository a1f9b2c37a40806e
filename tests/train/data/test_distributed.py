"""Two real processes make equal steps, whatever the shards, and together see the epoch once."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from once import Once
from sample_compile import rows_of

RANK = """
import json, os, sys
import torch.distributed as distributed
from accelerate import Accelerator
from oxcart.train.data import Loader, Pairs

pairs = Pairs(frames=2, per_episode="all")
for by, port, url in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    if by == "accelerate":
        accelerator = Accelerator(cpu=True)
    else:
        distributed.init_process_group("gloo")
    loader = Loader(url, sample=pairs, batch_size=8, lanes=4, block=8, repeat=False)
    seen, steps = [], 0
    for batch in loader:
        distributed.barrier()
        steps += 1
        seen += [[key, t] for key, t in zip(batch.key, batch.t.tolist())]
    print(json.dumps({"steps": steps, "seen": seen, "rank": loader.rank, "world": loader.world_size}))
    distributed.destroy_process_group()
"""
"""Ranks that meet again and again; a line for each time."""
CASES = (("raw", "torch"), ("zstd", "torch"), ("raw", "accelerate"))

Found = dict[str, Any]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


@pytest.fixture(scope="module")
def found(datasets: Mapping[str, Path], once: Once) -> dict[tuple[str, str], list[Found]]:
    """Codec and way of starting -> what each rank saw; two processes for all of them."""

    def launch(folder: Path) -> dict[tuple[str, str], list[Found]]:
        ports = free_ports(len(CASES))
        given = [(by, port, str(datasets[codec])) for (codec, by), port in zip(CASES, ports, strict=True)]
        place = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, json.dumps(given)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]
        said = []
        for process in processes:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            said.append([json.loads(line) for line in out.splitlines()])
        return {case: list(both) for case, both in zip(CASES, zip(*said, strict=True), strict=True)}

    made: dict[tuple[str, str], list[Found]] = once("distributed", launch)
    return made


@pytest.mark.parametrize(("codec", "by"), CASES)
def test_ranks_with_uneven_shards_finish_together(
    datasets: Mapping[str, Path], found: dict[tuple[str, str], list[Found]], codec: str, by: str
) -> None:
    one, other = found[codec, by]
    assert [(rank["rank"], rank["world"]) for rank in (one, other)] == [(0, 2), (1, 2)]
    assert one["steps"] == other["steps"] > 3
    rows = [row for row in rows_of(datasets[codec]) if row["split"] == "train"]
    assert len(set(Counter(row["shard"] for row in rows).values())) > 1, "the shards should be uneven"
    expected = Counter((row["key"], t) for row in rows for t in range(row["steps"] - 2))
    assert Counter(tuple(sample) for rank in (one, other) for sample in rank["seen"]) == expected
