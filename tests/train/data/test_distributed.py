"""Two real processes make equal steps, whatever the shards, and together see the epoch once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from sample_compile import rows_of

RANK = """
import json, os, sys
import torch.distributed as distributed
from oxcart.train.data import Loader, Pairs

if sys.argv[2] == "accelerate":
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=True)
else:
    distributed.init_process_group("gloo")
pairs = Pairs(frames=2, per_episode="all")
loader = Loader(sys.argv[1], sample=pairs, batch_size=8, lanes=4, window=8, repeat=False)
seen, steps = [], 0
for batch in loader:
    distributed.barrier()
    steps += 1
    seen += [[key, t] for key, t in zip(batch.key, batch.t.tolist())]
print(json.dumps({"steps": steps, "seen": seen, "rank": loader.rank, "world": loader.world_size}))
distributed.destroy_process_group()
"""


@pytest.mark.parametrize(("codec", "by"), [("raw", "torch"), ("zstd", "torch"), ("raw", "accelerate")])
def test_ranks_with_uneven_shards_finish_together(datasets: Mapping[str, Path], codec: str, by: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(datasets[codec]), by],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    found = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        found.append(json.loads(out))
    assert [(one["rank"], one["world"]) for one in found] == [(0, 2), (1, 2)]
    assert found[0]["steps"] == found[1]["steps"] > 3
    rows = [row for row in rows_of(datasets[codec]) if row["split"] == "train"]
    assert len(set(Counter(row["shard"] for row in rows).values())) > 1, "the shards should be uneven"
    expected = Counter((row["key"], t) for row in rows for t in range(row["steps"] - 2))
    assert Counter(tuple(sample) for one in found for sample in one["seen"]) == expected
