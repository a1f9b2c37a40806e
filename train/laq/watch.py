"""Watch the use of codes in training, where a collapse begins long before a validation sees it.

    watch = CodeWatch(config.quantizer, config.train.log_every, device)
    watch.add(counts)               # at every step; the host does not wait
    values = watch.look(step)       # when metrics are due: {"usage": 1.0, "perplexity_0": 7.2, ...}

Codes are judged by the counts since they were judged last, once these are of enough pairs to tell: ten per
code, of which a code in equal use is missed once in 20,000 times. A codebook may collapse for a while: at
the start, and until unused codes that came back find a use. So it is reported only when it has been collapsed
for `quantizer.patience` steps. A resumed run begins to count anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oxcart.shards.errors import CollapseError
from oxcart.train.laq.config import QuantizerConfig
from oxcart.train.laq.validate import COLLAPSED, REMEDY, judge_codebook, usage_of_places

PAIRS_PER_CODE = 10
COLLAPSED_STEPS = "collapsed_steps"
"""Metric: steps for which few codes have been used; absent while enough are."""


class CodeWatch:
    """Counts of codes since they were judged last, and since when they are collapsed."""

    def __init__(self, config: QuantizerConfig, every: int, device: torch.device) -> None:
        self._config, self._every = config, every
        self._counts = torch.zeros(config.tokens, config.codes, dtype=torch.int64, device=device)
        self._began: int | None = None
        self._since: int | None = None

    def add(self, counts: Tensor) -> None:
        """Count the uses int64 [n, K] of a step, over all ranks."""
        if self._config.on_collapse != "off":
            self._counts += counts

    def look(self, step: int) -> dict[str, float]:
        """Usage and perplexities of the codes since the last look, if it is time and there are enough.

        Args:
            step: optimizer steps done.

        Raises:
            CollapseError: codes have been collapsed for long, and `quantizer.on_collapse` is `stop`.
        """
        if self._config.on_collapse == "off":
            return {}
        if self._began is None:
            self._began = step - 1
        if step % self._every:
            return {}
        values: dict[str, float] = {}
        places = self._counts.cpu().numpy()
        if places[0].sum() >= PAIRS_PER_CODE * self._config.codes:
            found = judge_codebook(places)
            if found["codebook"] != COLLAPSED:
                self._since = None
            elif self._since is None:
                self._since = self._began
            values = {**usage_of_places(places), "usage_least": found["usage_least"]}
            self._began = step
            self._counts.zero_()
        if self._since is not None:
            values[COLLAPSED_STEPS] = float(step - self._since)
            if self._config.on_collapse == "stop" and step - self._since >= self._config.patience:
                raise CollapseError(
                    f"step {step:,}: {_said(step - self._since)}; quantizer.on_collapse=warn goes on"
                )
        return values

    def warnings(self, values: Mapping[str, Any]) -> list[str]:
        """The warning about metrics that were returned, at the first look after the patience ended."""
        steps = int(values.get(COLLAPSED_STEPS, 0))
        over = steps - self._config.patience
        return [_said(steps)] if 0 <= over < self._every else []


def _said(steps: int) -> str:
    long = f"training has used few of the codes of a token for {steps:,} steps"
    return f"the codebook has collapsed: {long}; {REMEDY}"
