"""Checkpoints of LAPA's own code: what becomes of them, and what is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lapa_files import SMALL_LAPA, lapa_names, small_lapa, write_lapa

from oxcart.shards.errors import ConfigError, CorruptError
from oxcart.train.laq.config import LaqConfig, laq_config
from oxcart.train.laq.label import open_run
from oxcart.train.laq.published import import_lapa
from tiny_laq import alone


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with alone():
        yield


def small(run: Path, *more: str) -> LaqConfig:
    given = {text.partition("=")[0]: text for text in (*SMALL_LAPA, f"run.dir={run}", *more)}
    return laq_config(["preset=lapa", *given.values()])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_imported_model_gives_the_numbers_of_the_one_that_was_saved(tmp_path: Path, prefix: str) -> None:
    config = small(tmp_path / "run")
    model = small_lapa(config)
    torch.save({prefix + name: one for name, one in lapa_names(model).items()}, tmp_path / "laq.pt")
    count = import_lapa(tmp_path / "laq.pt", config)
    labeller = open_run(tmp_path / "run", device="cpu")
    assert (labeller.config, labeller.record) == (config, None)
    assert count == sum(one.numel() for one in model.state_dict().values())
    frames = torch.rand(3, 2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(labeller.model.latents(frames), model.latents(frames))
        codes = labeller.model.encode(frames)
        assert torch.equal(codes, model.encode(frames))
        assert torch.equal(labeller.model.decode(frames[:, 0], codes), model.decode(frames[:, 0], codes))
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["imported"]["file"] == "laq.pt"


Write = Callable[[Path, LaqConfig], Any]


def changed(name: str, value: object) -> Write:
    """Writes a checkpoint with another value, or without it if that is None."""

    def write(file: Path, config: LaqConfig) -> None:
        found = {**lapa_names(small_lapa(config)), name: value}
        torch.save({name: one for name, one in found.items() if one is not None}, file)

    return write


def instead(made: Callable[[dict[str, Any]], Any]) -> Write:
    """Writes something else that is made from the weights."""
    return lambda file, config: torch.save(made(lapa_names(small_lapa(config))), file)


def nested(file: Path, config: LaqConfig) -> None:
    """Writes a checkpoint with tensors in a tensor."""
    parts = [torch.zeros(2), torch.zeros(3)]
    changed(BIAS, torch.nested.nested_tensor(parts, layout=torch.strided))(file, config)


def deflated(file: Path, config: LaqConfig) -> None:
    """Writes a checkpoint of which a part is zeros, and compresses it."""
    changed("more", torch.zeros(100_000))(file, config)
    with zipfile.ZipFile(file) as found:
        entries = {name: found.read(name) for name in found.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in entries.items():
            written.writestr(name, content)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("it ran",)


BIAS, SCALE = "to_pixels_first_frame.0.bias", "enc_spatial_transformer.layers.0.1.q_scale"
NORM = SCALE.replace("q_scale", "norm.beta")
EXPANDED = torch.zeros(1).expand(10**13)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (changed(BIAS, None), f"there is no {BIAS}, which the model"),
        (changed("vq.codebooks", None), "there is no vq.codebooks, which"),
        (changed(SCALE, torch.ones(5)), rf"{SCALE} is \[5\], and \[8\] in"),
        (changed("vq.codebooks", torch.ones(9, 6)), r"vq.codebooks is \[1, 9, 6\]"),
        (changed("more", torch.ones(2)), "the model of its configuration has no more"),
        (changed(SCALE, torch.full((8,), torch.nan)), f"{SCALE} holds numbers that are not finite"),
        (changed(NORM, torch.ones(16)), f"{NORM} is not 0"),
        (changed("steps", 5), "holds more than plain tensors: steps;"),
        (changed(BIAS, torch.ones(12).int()), f"holds more than plain tensors: {BIAS};"),
        (changed(BIAS, torch.ones(12).to_sparse()), f"holds more than plain tensors: {BIAS};"),
        (changed(BIAS, torch.ones(12).to(torch.float8_e4m3fn)), f"holds more than plain tensors: {BIAS};"),
        (changed(NORM, torch.zeros(16).to(torch.float8_e4m3fn)), f"holds more than plain tensors: {NORM};"),
        (changed(BIAS, torch._neg_view(torch.ones(12))), f"holds more than plain tensors: {BIAS};"),
        (nested, f"holds more than plain tensors: {BIAS};"),
        (
            changed(BIAS, torch.full((12,), 1e300, dtype=torch.float64)),
            f"{BIAS} holds numbers that are not finite",
        ),
        (changed(NORM, EXPANDED), f"holds more than plain tensors: {NORM};"),
        (changed(SCALE.replace("q_scale", "context_norm.gamma"), EXPANDED), "holds more than plain tensors"),
        (changed("module." + BIAS, torch.zeros(12)), f"module.{BIAS} occurs twice"),
        (changed("quantizer.codebook", torch.zeros(1, 8, 6)), "quantizer.codebook occurs twice, under"),
        (changed("a" * 100_000, torch.zeros(1)), "expected names of weights, got 'a{59}$"),
        (changed("a\nb", torch.zeros(1)), r"expected names of weights, got 'a\\nb'$"),
        (deflated, "expands to .* bytes when read; write it with torch.save"),
        (changed("more", Evil()), "not a file of tensors alone: .*nsupported"),
        (instead(lambda found: {"model": found, "optim": {}}), "holds more .* tensors: model, optim;"),
        (instead(lambda found: [1, 2]), "expected tensors by name, got list"),
        (lambda file, config: file.write_bytes(b"hello"), "not a file of tensors alone: "),
        (lambda file, config: file.write_bytes(b""), "not a file of tensors alone: "),
    ],
)
def test_a_file_that_is_no_such_checkpoint_is_refused_in_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Write, said: str
) -> None:
    config, file = small(tmp_path / "run"), tmp_path / "laq.pt"
    write(file, config)
    with pytest.raises(CorruptError, match=f"{file}: {said}") as error:
        import_lapa(file, config)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert "it ran" not in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_not_called_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        import_lapa(tmp_path, small(tmp_path / "run"))


def test_other_sizes_say_which_to_give(tmp_path: Path) -> None:
    write_lapa(tmp_path / "laq.pt", small(tmp_path / "run"))
    with pytest.raises(CorruptError, match=r"if it is a checkpoint of LAPA with other sizes, give them"):
        import_lapa(tmp_path / "laq.pt", small(tmp_path / "run", "model.width=32"))


def test_a_run_is_not_written_over_and_an_imported_one_not_resumed(kitchen: Path, tmp_path: Path) -> None:
    from oxcart.train.laq.task import train_laq

    config = small(tmp_path / "run", f"data.datasets=[{kitchen}]", "train.device=cpu", "val.every=0")
    write_lapa(tmp_path / "laq.pt", config)
    import_lapa(tmp_path / "laq.pt", config)
    with pytest.raises(ConfigError, match="holds a run; pass --resume auto to continue it"):
        import_lapa(tmp_path / "laq.pt", config)
    with pytest.raises(ConfigError, match="the run was imported and cannot be resumed; train in another"):
        train_laq(laq_config([f"run.dir={tmp_path / 'run'}"], resume=True), resume=True)
    with pytest.raises(ConfigError, match=r"^model\.kind: expected lapa, .* got layered"):
        import_lapa(tmp_path / "laq.pt", laq_config(["preset=tiny", f"run.dir={tmp_path / 'other'}"]))
