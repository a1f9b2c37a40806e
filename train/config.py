"""Configuration: dataclasses with a docstring per field, a preset in YAML, and dotted overrides.

    config = resolve(LaqConfig, LAQ_PRESETS, ["preset=tiny", "data.datasets=[bridge]", "train.steps=2000"])

Overrides win over `train/configs/<family>/<preset>.yaml`, which wins over the defaults of the dataclasses.
OmegaConf merges them and checks the types. Keys are checked first, so that the answer to a mistyped one names
the closest that exists. The trade-off: every key must be a field of a dataclass; a file can add none, and no
interpolation is resolved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from oxcart.manifests.where import Where
from oxcart.shards.choices import nearest, one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.data.activity import Idle
from oxcart.train.data.config import BALANCES, READ_MODES
from oxcart.train.data.mixture import EPOCHS, check_weights
from oxcart.train.data.order import BLOCK, LANES
from oxcart.train.data.sampling import check_per_episode
from oxcart.train.evaluate.strategies import MERGED
from oxcart.train.ranges import check_numbers

T = TypeVar("T")

CONFIG = "config.yaml"
"""File of a run that holds its configuration."""
RENAMED = {
    "data.reading": "data.read_mode",
    "data.ahead": "data.prefetch",
    "data.window": "data.block",
    "val.pictures": "val.images",
    "model.output": "model.kind",
}
"""Keys of configurations that older versions saved -> what they are called now, in the same section."""
RENAMED_PRESETS = {"laq/base": "large"}
"""Presets of older versions -> what they are called now."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Output directory of a run, and where it reports metrics."""

    dir: str = "runs/laq"
    """Directory of the run: configuration, metrics, figures, checkpoints."""
    tensorboard: bool = False
    """Write TensorBoard events beside metrics.jsonl."""
    wandb: str | None = None
    """Name of the Weights & Biases project to report to."""
    quiet: bool = False
    """Hide the live progress line."""


@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """Limits to the first n episodes of each dataset, counted after the split."""

    train: int | None = None
    """Number of train episodes."""
    val: int | None = None
    """Number of episodes of each held-out split."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data to read, and their order."""

    datasets: list[str] = field(default_factory=list)
    """Directories or URLs of compiled datasets."""
    mix: Any = "frames"
    """`frames`, `episodes`, `equal`, or a list with a number for each dataset."""
    epoch: str = "largest"
    """An epoch is one pass through the `largest` dataset, the `smallest`, or `all`."""
    offset: int | None = None
    """Steps between the two frames of a pair; give this or `seconds`."""
    seconds: float | None = None
    """Seconds between the two frames of a pair; needs a verified control rate, or `control_rate`."""
    control_rate: Any = None
    """Steps per second, in place of what the datasets say of themselves: a number for all of them, or one by
    name for some: {bridge: 5, droid: 15}."""
    per_episode: Any = "all"
    """Pairs per episode in an epoch: a number, or "all"."""
    min_motion: float | None = None
    """Leave out samples of train that move less than this from step to step, in the unit of the motion labels
    that `oxcart annotate motion` wrote beside each dataset."""
    min_action: float | None = None
    """Leave out samples of train whose actions move less than this per step, in the unit of the labels that
    `oxcart annotate action` wrote beside each dataset."""
    idle: Idle = field(default_factory=Idle)
    """Which samples below these thresholds stay."""
    where: str | None = None
    """Train only on episodes of which an expression holds, such as "success and environment ~ 'toy'"."""
    keys: str | None = None
    """Train only on episodes whose keys are in this file or URL, one per line."""
    balance: str | None = None
    """`instruction`, `environment` or `dataset`: draw train samples from each equally often."""
    batch_size: int = 64
    """Samples of an optimizer step, over all ranks and accumulation."""
    camera: str = "primary"
    """Name or role of the camera to read; a role is `primary`, `secondary` or `wrist`."""
    limit: LimitConfig = field(default_factory=LimitConfig)
    """Limits on the number of episodes."""
    lanes: int = LANES
    """Lanes of the shuffle: places of the dataset that a batch is drawn from."""
    block: int = BLOCK
    """Samples per lane that are shuffled among each other."""
    read_mode: str = "auto"
    """`sparse`, `sequential`, or `auto`."""
    memory_mb: int = 1024
    """Size limit of the chunks kept in memory because they are needed again soon, in megabytes, over all
    loaders of a rank."""
    prefetch: int = 4
    """Batches that are read ahead of the one in use."""
    threads: int | None = None
    """Threads that read, shared by all loaders of a rank; null uses the rank's share of the cores, or 32 if a
    dataset is remote."""
    cache: str | None = None
    """Local directory that caches data from remote datasets; only this user may have access."""
    cache_gb: float = 100.0
    """Size limit of the cache, in gigabytes."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: optimizer, schedule, precision, checkpoints."""

    steps: int = 200_000
    """Optimizer steps."""
    seed: int = 0
    """Seed of weights, order and noise."""
    lr: float = 1e-4
    """Peak learning rate."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    """Betas of AdamW."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases, norms, embeddings and codebooks have none."""
    warmup: int = 1000
    """Steps of linear warm-up."""
    schedule: str = "cosine"
    """After the warm-up: `constant`, or `cosine` down to `final_lr`."""
    final_lr: float = 0.0
    """Learning rate at the end of the cosine, as a share of `lr`."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    accumulate: int = 1
    """Number of pieces of a rank's batch that run one after the other, to save memory."""
    precision: str = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 on a GPU."""
    tf32: bool = True
    """On a GPU, multiply what stays float32 in TF32."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if there is one."""
    compile: bool = False
    """torch.compile the model."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl; at these steps the ranks agree whether to stop."""
    save_every: int = 1000
    """Steps between checkpoints."""
    threads: int | None = None
    """Threads of torch on the CPU; null keeps torch's default."""
    shard: str = "none"
    """`none`: every rank has the whole model; `full`: weights, gradients and moments are divided among the
    ranks, for a model that does not fit. Only for `oxcart train vla`."""
    timeout: int = 1800
    """Seconds that a rank waits for the others, before it ends because one is lost."""


@dataclass(frozen=True, kw_only=True)
class ValConfig:
    """Validation on held-out environments, and on other sessions of environments that were seen."""

    every: int = 1000
    """Steps between validations; one more runs at the end. 0 turns them off, and no `val` split is needed."""
    samples: int = 512
    """Samples per dataset and split, drawn at random and then fixed; at most as many as there are."""
    batch_size: int = 64
    """Samples per forward pass."""
    seed: int = 0
    """Seed of the draw."""
    splits: list[str] = field(default_factory=lambda: ["val", "val_seen"])
    """Splits to validate on. The first is required and decides which checkpoint is best."""
    images: int = 8
    """Number of rows in samples.png."""


@dataclass(frozen=True, kw_only=True)
class ComparedValConfig(ValConfig):
    """Validation on held-out environments, and on other sessions of environments seen in training."""

    baselines: int = 2048
    """Number of train samples from which the baselines are made; 0 leaves baselines out."""


@dataclass(frozen=True, kw_only=True)
class FrameAugmentConfig:
    """Augmentation of frames in training that leaves their codes and actions valid."""

    shift: float = 0.0
    """Largest shift of frames, as a share of their sides; the edge is repeated."""
    light: float = 0.0
    """Largest change of brightness, contrast and the gain of each channel."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation of codes during training; see docs/analysis.md."""

    strategies: list[str] = field(default_factory=list)
    """Names of files in train/evaluate/strategies, or `all`; an empty list measures nothing."""
    every: int = 1
    """Validations from one evaluation to the next; one more runs at the end and writes analysis.html."""
    samples: int = 512
    """Pairs per dataset and split, at most."""
    frames: int = 64
    """Pairs whose frames are kept, over all datasets."""
    flow: str = "dis"
    """Method of optical flow: `dis` (OpenCV's DIS), `raft` (torchvision's RAFT) or `none`."""


class TrainerConfig(Protocol):
    """The sections that the configuration of every trainer has."""

    @property
    def run(self) -> RunConfig: ...
    @property
    def train(self) -> TrainConfig: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def val(self) -> ValConfig: ...


def resolve(
    schema: type[T],
    presets: Path,
    overrides: Sequence[str],
    saved: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
) -> T:
    """Build a configuration from a preset or a saved configuration, and overrides.

    Args:
        schema: the dataclass, with a field `preset`.
        presets: folder of YAML files.
        overrides: such as `train.steps=200`; `preset=NAME` picks the preset.
        saved: start from these values instead of a preset.
        resume: start from the configuration of the run in `run.dir`, if there is one.

    Raises:
        ConfigError: a preset or key does not exist, a value has the wrong type, or a file cannot be read.
    """
    known = leaves(asdict(schema()))  # type: ignore[call-overload]
    given = dict(_parse(text) for text in overrides)
    if resume:
        saved = saved_config(Path(str(given.get("run.dir") or known["run.dir"])))
    if saved is None:
        name = str(given.get("preset", known["preset"]))
        base = {**_read_preset(presets, name), "preset": name}
    else:
        base = {name: renamed(name, section) for name, section in saved.items()}
        if given.get("preset", base.get("preset")) != base.get("preset"):
            raise ConfigError(
                f"preset: the run was started with {base.get('preset')!r}, got {given['preset']!r}; "
                "leave it out, or use another run.dir"
            )
    for key, value in (leaves(base) | given).items():
        _check_key(key, known)
        if isinstance(known.get(key), list) and not isinstance(value, list):
            raise ConfigError(f"{key}: expected a list, such as {key}=[{value}]; got {value!r}")
        if "${" in str(value):
            raise ConfigError(f"{key}: expected a plain value, got the interpolation {value!r}; write it out")
    try:
        plain = OmegaConf.create(base)
        for key, value in given.items():
            OmegaConf.update(plain, key, value, merge=False)
        built = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "configuration"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    assert isinstance(built, schema)
    return built


def renamed(name: str, section: Any) -> Any:
    """A section of a saved configuration with today's names of its keys and strategies."""
    if not isinstance(section, Mapping):
        return section
    now = {
        old.partition(".")[2]: new.partition(".")[2]
        for old, new in RENAMED.items()
        if old.startswith(f"{name}.")
    }
    found = {now.get(key, key): value for key, value in section.items()}
    if name == "evaluate" and isinstance(found.get("strategies"), list):
        found["strategies"] = list(dict.fromkeys(MERGED.get(str(one), one) for one in found["strategies"]))
    return found


def to_yaml(config: Any) -> str:
    """A configuration as YAML, with every key, in the order of the dataclasses."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def saved_config(run: Path) -> dict[str, Any] | None:
    """The configuration with which a run was started; None if there is no run.

    Raises:
        ConfigError: the file of the configuration cannot be read.
    """
    return _read(run / CONFIG) if (run / CONFIG).exists() else None


def leaves(values: Any, above: str = "") -> dict[str, Any]:
    """Dotted key -> value, for every value of nested mappings that is not a mapping itself."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def check_shared(config: TrainerConfig) -> None:
    """Refuse invalid values in the sections that every trainer has, and invalid numbers in any section.

    Raises:
        ConfigError: a value is invalid; the message names its key.
    """
    train, data, val = config.train, config.data, config.val
    if len(train.betas) != 2 or not all(0 <= beta < 1 for beta in train.betas):
        raise ConfigError(f"train.betas: expected two numbers in [0, 1), got {train.betas}")
    check_numbers(leaves(asdict(config)))  # type: ignore[call-overload]
    one_of("train.schedule", train.schedule, ("constant", "cosine"))
    one_of("train.precision", train.precision, ("auto", "fp32", "bf16"))
    one_of("train.shard", train.shard, ("none", "full"))
    one_of("train.device", train.device, ("auto", "cpu", "cuda"))
    one_of("data.epoch", data.epoch, EPOCHS)
    one_of("data.read_mode", data.read_mode, READ_MODES)
    one_of("data.balance", data.balance, BALANCES)
    if data.where is not None:
        Where(data.where)  # parses it
    check_weights("data.mix", data.mix)
    if isinstance(data.mix, list) and data.datasets and len(data.mix) != len(data.datasets):
        raise ConfigError(
            f"data.mix: expected a number for each of {len(data.datasets)} datasets, got {len(data.mix)}"
        )
    check_per_episode("data.per_episode", data.per_episode)
    rate = data.control_rate
    for one in rate.values() if isinstance(rate, Mapping) else [rate]:
        if one is not None and (isinstance(one, bool) or not isinstance(one, int | float)):
            raise ConfigError(f"data.control_rate: expected steps per second, got {one!r}")
    if config.run.wandb in ("True", "False"):
        raise ConfigError(
            f"run.wandb: expected the name of a project, such as run.wandb=robots, got {config.run.wandb}"
        )
    if not config.run.dir:
        raise ConfigError("run.dir: expected a directory, got nothing")
    if not val.splits:
        raise ConfigError("val.splits: expected at least one split, got none; val.every=0 turns it off")
    if len(set(val.splits)) < len(val.splits):
        raise ConfigError(f"val.splits: expected each once, got {', '.join(val.splits)}")


def _parse(text: str) -> tuple[str, Any]:
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {text!r}: expected KEY=VALUE, such as train.steps=1000")
    try:
        value = OmegaConf.from_dotlist([f"value={text[len(key) + 1 :]}"])
    except (OmegaConfBaseException, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key}: cannot be read as a value: {reason}; quote it") from error
    container = OmegaConf.to_container(value)
    assert isinstance(container, dict)
    return key.strip(), container["value"]


def _check_key(key: str, known: Mapping[str, Any]) -> None:
    if key in known or key.rpartition(".")[0] == "data.control_rate":
        return
    if below := [name for name in known if name.startswith(f"{key}.")]:
        raise ConfigError(f"{key}: is a section; set one of {', '.join(below)}")
    tail = key.rpartition(".")[2]
    same = next((name for name in known if name.rpartition(".")[2] == tail), None)
    best = RENAMED.get(key) or same or nearest(key, known)
    hint = f"did you mean {best}? " if best else ""
    raise ConfigError(f"{key}: no such key; {hint}--print-config lists all of them")


def _read_preset(presets: Path, name: str) -> dict[str, Any]:
    if now := RENAMED_PRESETS.get(f"{presets.name}/{name}"):
        raise ConfigError(f"preset: {name} is called {now} now; use preset={now}")
    one_of("preset", name, sorted(path.stem for path in presets.glob("*.yaml")))
    return _read(presets / f"{name}.yaml")


def _read(path: Path) -> dict[str, Any]:
    """Read the values of a YAML file."""
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(loaded).__name__}")
    return {str(key): value for key, value in loaded.items()}
