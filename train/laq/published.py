"""Import a checkpoint that LAPA's own code saved (`torch.save(model.state_dict())`) as a run of ours.

    import_lapa(Path("laq_openx.pt"), laq_config(["preset=lapa", "run.dir=runs/lapa"]))

Such a file is a pickle, which could run code. So it is read with `weights_only=True`, and refused if it holds
anything but tensors. Its names, sizes and numbers are checked before anything is written. The run holds a
configuration and a checkpoint, which is all that `label`, `evaluate` and `train vla` take. It keeps no record
of what the model was trained on, and it cannot be resumed: the file does not say where training stood.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from blake3 import blake3
from torch import Tensor
from torch.nn import Parameter

from oxcart.manifests.ownership import RUN, check_directory
from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train import checkpoint as checkpoints
from oxcart.train import run_directory
from oxcart.train.config import to_yaml
from oxcart.train.finite import not_finite
from oxcart.train.laq.build import identity_of, shapes_of
from oxcart.train.laq.config import LaqConfig

UNUSED = re.compile(r"(\.beta|\.layers\.\d+\.1\.null_kv)$")
"""Names of tensors that are constant: the bias of norms, which is 0, and null keys, which are none."""
IGNORED = re.compile(r"\.layers\.\d+\.1\.context_norm\.gamma$")
"""Names of weights that LAPA's computation does not use."""
BOOK, THEIRS = "quantizer.codebook", "vq.codebooks"
NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")
"""Names that a weight can have."""
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHOWN = 60
"""Number of characters kept of a stranger's name that no weight can have."""


def import_lapa(file: Path, config: LaqConfig) -> int:
    """Write the run directory `run.dir` of a checkpoint of LAPA.

    Args:
        file: the checkpoint.
        config: configuration whose model has the sizes of the checkpoint.

    Returns:
        Number of weights.

    Raises:
        ConfigError: the configuration has another network, or `run.dir` is taken.
        CorruptError: the file holds more than tensors, or other ones than the model has.
    """
    if config.model.kind != "lapa":
        raise ConfigError(f"model.kind: expected lapa, whose checkpoints are read, got {config.model.kind}")
    run = Path(config.run.dir)
    check_directory("run.dir", run, RUN)
    run_directory.check_free(run)
    weights = read_published(file, config)
    with open(file, "rb") as content:
        digest = blake3()
        while block := content.read(1 << 20):
            digest.update(block)
    source = {"file": file.name, "blake3": digest.hexdigest()}
    about = {**run_directory.circumstances({}, 1, "cpu"), "imported": source}
    run_directory.write_run(run, to_yaml(config), about)
    state = {"identity": identity_of(config), "config": asdict(config), "datasets": {}, "imported": source}
    tensors = {f"model/{name}": weight for name, weight in weights.items()}
    checkpoints.CheckpointWriter(run).save(0, tensors, state)
    return sum(weight.numel() for weight in weights.values())


def read_published(file: Path, config: LaqConfig) -> dict[str, Tensor]:
    """The weights of a checkpoint of LAPA, float32, under the names of our model.

    Raises:
        CorruptError: see `import_lapa`.
    """
    found: dict[str, Tensor] = {}
    for name, value in _tensors(file).items():
        own = name.removeprefix("module.")  # of a model that was trained on several GPUs
        if UNUSED.search(own):
            if value.any():
                raise CorruptError(f"{file}: {name} is not 0; LAPA's own code never changes it")
        elif not IGNORED.search(own):
            if own == THEIRS:
                own, value = BOOK, value[None]
            if own in found:
                raise CorruptError(f"{file}: {name} occurs twice, under two names; keep one of them")
            found[own] = value
    quantizer = config.quantizer
    wanted = shapes_of(config.model, quantizer, config.flow)
    wanted[BOOK] = (1, quantizer.codes, quantizer.dim)
    try:
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        checkpoints.check_shapes(file, shapes, wanted)
    except CorruptError as error:
        hint = "if it is a checkpoint of LAPA with other sizes, give them, such as model.width=512"
        raise CorruptError(f"{str(error).replace(BOOK, THEIRS)}; {hint}") from error
    weights = {name: value.detach().float().contiguous() for name, value in found.items()}
    if lost := not_finite(weights):
        raise CorruptError(f"{file}: {lost} holds numbers that are not finite in float32")
    return {**weights, "quantizer.used": torch.zeros(1, quantizer.codes, dtype=torch.int64)}


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file that holds nothing else."""
    try:
        _check_size(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (MemoryError, OSError, CorruptError):
        raise
    except Exception as error:  # whatever torch and pickle make of a stranger's file
        said = str(error).splitlines() or [type(error).__name__]
        reason = next((line.strip() for line in said if "nsupported" in line), said[0])
        raise CorruptError(f"{file}: not a file of tensors alone: {reason[:160]}") from error
    if not isinstance(loaded, Mapping):
        raise CorruptError(f"{file}: expected tensors by name, got {type(loaded).__name__}")
    if strange := [name for name in loaded if not isinstance(name, str) or not NAME.fullmatch(name)]:
        shown = " ".join(ascii(strange[0]).split())[:SHOWN]
        raise CorruptError(f"{file}: expected names of weights, got {shown}")
    if other := [name for name, value in loaded.items() if not _plain(value)]:
        raise CorruptError(
            f"{file}: holds more than plain tensors: {', '.join(other[:4])[:160]}; "
            "save the state_dict() of the model alone, in float32"
        )
    return dict(loaded)


def _check_size(file: Path) -> None:
    """Refuse an archive that grows when it is read; those of torch.save do not."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > file.stat().st_size:
            raise CorruptError(f"{file}: expands to {size:,} bytes when read; write it with torch.save")


def _plain(value: object) -> bool:
    """Whether a value is an array of floating-point numbers, each of which is stored."""
    return (
        type(value) in (Tensor, Parameter)
        and isinstance(value, Tensor)
        and not value.is_nested
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in DTYPES
        and not value.is_neg()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
