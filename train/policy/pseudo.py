"""Actions told by an inverse-dynamics model: written for every step of a dataset, and read as chunks.

    relabel("bridge", load_policy("runs/inverse"), "actions.parquet")

The model is a policy that sees what follows: frames t and t + 1, and from them the action at t. Steps without
a second frame, at the end of an episode, have NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from oxcart.manifests.annotation import Annotation, read_annotation, write_annotation
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.tables import EPISODES
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Batch, Loader, Window
from oxcart.train.finite import refuse
from oxcart.train.policy.controller import Controller

NAME = "actions"


class Pseudo:
    """The actions of some datasets, as an inverse-dynamics model tells them.

    Args:
        values: name of each dataset -> key of each episode -> float32 [T, A], NaN where there is none.
    """

    def __init__(self, values: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]) -> None:
        self._values = values

    @classmethod
    def read(cls, urls: Sequence[str], datasets: Sequence[Dataset]) -> Pseudo:
        """Read files of `relabel`, one for each dataset.

        Raises:
            ConfigError: a file holds something else, or is of another dataset; or a dataset has none.
        """
        by_print = {one.manifest.fingerprint: one for one in datasets}
        found = {}
        for url in urls:
            read = read_annotation(url)
            if read.name != NAME or read.dataset not in by_print:
                raise ConfigError(
                    f"data.pseudo: {url} holds {read.name!r} of the dataset {read.dataset[:12]}, expected "
                    f"{NAME!r} of {' or '.join(one[:12] for one in by_print)}; make it with: oxcart label "
                    "--policy"
                )
            dataset = by_print[read.dataset].manifest
            assert dataset.action is not None
            names = [one["name"] for one in dataset.action["columns"]]
            if read.parameters.get("columns") != names:
                raise ConfigError(
                    f"data.pseudo: {url} has other columns than the actions, {', '.join(names)}"
                )
            found[dataset.dataset["name"]] = read.values
        for one in datasets:
            if one.manifest.dataset["name"] not in found:
                raise ConfigError(
                    f"data.pseudo: none is of {one.store.url}; make one: oxcart label {one.store.url} "
                    "--policy RUN -o actions.parquet"
                )
        return cls(found)

    def chunks(self, batch: Batch, horizon: int) -> Tensor:
        """The actions [B, K, A] from the step of each sample on; NaN beyond the end of its episode."""
        assert batch.action is not None
        found = torch.full((len(batch), horizon, batch.action.shape[2]), torch.nan)
        for row, (name, key, t) in enumerate(zip(batch.dataset, batch.key, batch.t.tolist(), strict=True)):
            own = self._values[name][key][t : t + horizon]
            found[row, : len(own)] = torch.from_numpy(own.copy())
        return found


def relabel(
    url: str,
    controller: Controller,
    output: str,
    *,
    batch_size: int = 64,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """Write the actions that an inverse-dynamics model tells for every step of a dataset.

    Args:
        url: address of the dataset.
        controller: the model.
        output: file to write.
        batch_size: steps per forward pass.
        report: called with the number of steps done.

    Returns:
        Counts of episodes, steps, and steps with actions.

    Raises:
        ConfigError: the policy does not see what follows, reads the state, or tells several actions; or the
            dataset has other cameras.
        NotFiniteError: an action is not finite.
    """
    spec, dataset = controller.spec, Dataset.open(url)
    if spec.frames[-1] <= 0 or spec.state or spec.horizon != 1:
        raise ConfigError(
            "--policy: expected an inverse-dynamics model, trained with data.frames=[0, 1] policy.horizon=1 "
            f"policy.state=false; this one has frames {list(spec.frames)}, horizon {spec.horizon} and "
            f"{'the state' if spec.state else 'no state'}"
        )
    window = Window(frames={name: spec.frames for name, _ in spec.cameras}, pad="drop", per_episode="all")
    table = dataset.table(EPISODES, ["key", "steps"])
    values = {
        str(key): np.full((steps, len(spec.action)), np.nan, np.float32)
        for key, steps in zip(table["key"].to_pylist(), table["steps"].to_pylist(), strict=True)
    }
    done = 0
    for split in sorted(name for name, counts in dataset.manifest.splits.items() if counts["episodes"]):
        loader = Loader(
            dataset,
            split,
            sample=window,
            batch_size=batch_size,
            size=dict(spec.cameras),
            rank=0,
            world_size=1,
            repeat=False,
            pin=False,
        )
        for batch in loader:
            told = controller.tell(batch.frames, batch.instruction)[:, 0]
            refuse(torch.from_numpy(~np.isfinite(told).all(1)), batch, "actions")
            for key, t, action in zip(batch.key, batch.t.tolist(), told, strict=True):
                values[key][t] = action
            done += len(batch)
            report(done)
    annotation = Annotation(
        name=NAME,
        producer=controller.fingerprint,
        dataset=dataset.manifest.fingerprint,
        parameters={"columns": [one.name for one in spec.action]},
        values=values,
    )
    write_annotation(output, annotation)
    return {"episodes": len(values), "steps": sum(map(len, values.values())), "told": done}
