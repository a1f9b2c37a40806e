"""Configuration: what wins, and what a mistyped key is answered."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from oxcart.shards.errors import ConfigError
from oxcart.train import config as shared
from oxcart.train.config import leaves, saved_config, to_yaml
from oxcart.train.laq import config as module
from oxcart.train.laq.config import PRESETS, LaqConfig, laq_config
from oxcart.train.ranges import ELSEWHERE, RANGES, check_numbers
from oxcart.train.vla.config import VlaConfig


def test_an_override_wins_over_the_preset_and_the_preset_over_the_default() -> None:
    assert LaqConfig().model.image_size == 256
    assert laq_config(["preset=tiny"]).model.image_size == 64
    assert laq_config(["preset=tiny", "model.image_size=32"]).model.image_size == 32


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_is_a_configuration(preset: str) -> None:
    assert laq_config([f"preset={preset}"]).preset == preset


def test_the_published_preset_has_the_published_numbers() -> None:
    large, wide = laq_config(["preset=large"]), laq_config(["preset=wide"])
    model = large.model
    assert (model.image_size, model.patch, model.width, model.heads) == (256, 32, 1024, 16)
    assert (model.spatial_depth, model.temporal_depth, model.decoder_depth) == (8, 8, 8)
    assert (large.quantizer.tokens, large.quantizer.codes, large.quantizer.dim) == (4, 8, 32)
    assert (wide.quantizer.tokens, wide.quantizer.codes) == (1, 2048)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.step=5", "train.step: no such key; did you mean train.steps?"),
        ("batch_size=5", "batch_size: no such key; did you mean data.batch_size?"),
        ("trian.steps=5", "trian.steps: no such key; did you mean train.steps?"),
        ("nonsense=5", "nonsense: no such key; --print-config lists all of them"),
        ("model=5", "model: is a section; set one of model.kind, model.image_size"),
        ("train.steps", "override 'train.steps': expected KEY=VALUE"),
        ("train.steps=many", "train.steps: Value 'many' of type 'str' could not be converted to Integer"),
        (
            "preset=tny",
            "preset: expected one of flow, lapa, large, tiny, wide; got 'tny'; did you mean tiny?",
        ),
        ("preset=base", "preset: base is called large now; use preset=large"),
        ("model.kind=gate", "model.kind: expected one of plain, residual, layered, lapa; got 'gate'"),
        ("model.image_size=100", "model.image_size: expected a multiple of model.patch 32, got 100"),
        ("model.image_size=16", "model.patch: 32 pixels are more than the frames' 16"),
        ("train.steps=0", "train.steps: expected at least 1, got 0"),
        ("train.betas=[0.9]", "train.betas: expected two numbers in [0, 1), got [0.9]"),
        ("train.betas=[2,3]", "train.betas: expected two numbers in [0, 1), got [2.0, 3.0]"),
        ("train.threads=0", "train.threads: expected at least 1, got 0"),
        ("train.weight_decay=-1", "train.weight_decay: expected at least 0, got -1"),
        ("val.probe_samples=0", "val.probe_samples: expected at least 1, got 0"),
        ("model.mlp=0", "model.mlp: expected a hidden layer of at least 1, got 0 widths"),
        ("data.datasets=[a", "data.datasets: cannot be read as a value"),
        ("data.datasets=a", "data.datasets: expected a list, such as data.datasets=[a]; got 'a'"),
        ("train.betas={a: 1}", "train.betas: expected a list"),
        ("train.seed=-1", "train.seed: expected at least 0, got -1"),
        ("train.lr=inf", "train.lr: expected a finite number, got inf"),
        ("train.final_lr=-1", "train.final_lr: expected at least 0, got -1"),
        ("train.steps=1" + 400 * "0", "train.steps: expected at most 1e+12, got 1000"),
        ("train.betas=[nan,0]", "train.betas: expected two numbers in [0, 1), got [nan, 0.0]"),
        ("train.threads=100000", "train.threads: expected at most 1024, got 100000"),
        ("quantizer.harden=[nan,1]", "quantizer.harden: expected a finite number, got nan"),
        ("data.threads=20000", "data.threads: expected at most 1024, got 20000"),
        ("data.cache_gb=-1", "data.cache_gb: expected at least 1e-06, got -1"),
        ("data.control_rate=-1", "data.control_rate: expected at least 0.001, got -1"),
        ("data.mix=[a]", "data.mix: expected numbers from 0 to 1e+18, got ['a']"),
        ("data.mix=5", "data.mix: expected frames, episodes, equal or numbers, got 5"),
        ("data.mix=[true]", "data.mix: expected numbers from 0 to 1e+18, got [True]"),
        ("data.mix=[0,0]", "data.mix: all are 0"),
        ("data.per_episode=1.5", "data.per_episode: expected a whole number from 1 to 1,048,576"),
        ("data.per_episode=true", "data.per_episode: expected a whole number from 1 to 1,048,576"),
        ("data.epoch=all_of_it", "data.epoch: expected one of largest, smallest, all; got 'all_of_it'"),
        ("data.read_mode=fast", "data.read_mode: expected one of auto, sparse, sequential; got 'fast'"),
        ("val.splits=[val,val]", "val.splits: expected each once, got val, val"),
        ("run.dir=''", "run.dir: expected a directory, got nothing"),
        ("run.wandb=true", "run.wandb: expected the name of a project, such as run.wandb=robots, got True"),
    ],
)
def test_a_wrong_override_is_answered_in_one_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        laq_config([override])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        "tokens=256 codes=8192 dim=256",
        "tokens=64 codes=16384 dim=512 kind=vq shared=false",
        "tokens=16 codes=65536 dim=1024 kind=diveq",
        "tokens=16 codes=65536 dim=8192 kind=fsq",
        "tokens=16 codes=4096 dim=4096 shared=false",
    ],
)
def test_codebooks_that_fit_a_gigabyte_are_no_mistake(given: str) -> None:
    """All tokens share one but those of nsvq without `shared`, and fsq has none."""
    laq_config([f"quantizer.{one}" for one in given.split()])


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("tokens=17 codes=4096 dim=4096 shared=false", r"\(17 x codes x dim\), got 285,212,672"),
        ("tokens=1 codes=65536 dim=8192", r"\(1 x codes x dim\), got 536,870,912"),
        ("tokens=4 codes=65536 dim=8192 kind=vq", r"\(1 x codes x dim\), got 536,870,912"),
    ],
)
def test_codebooks_of_more_than_a_gigabyte_are_refused(given: str, numbers: str) -> None:
    with pytest.raises(ConfigError, match=rf"^quantizer\.codes: .* {numbers}$"):
        laq_config([f"quantizer.{one}" for one in given.split()])


@pytest.mark.parametrize("schema", [LaqConfig, VlaConfig])
def test_every_number_has_a_range_that_refuses_what_is_not_finite(schema: type) -> None:
    numbers = [key for key, kind in kinds(schema) if re.search(r"\b(int|float|Any)\b", kind)]
    assert {"data.limit.train", "data.mix", "data.per_episode"} <= set(numbers)
    for key in numbers:
        if key in ELSEWHERE:
            continue
        least, most = RANGES[key]
        for wrong in (float("nan"), float("inf"), least - 1, 2 * most + 1):
            with pytest.raises(ConfigError, match=f"^{re.escape(key)}: expected"):
                check_numbers({key: wrong})


def kinds(schema: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Every dotted key of a dataclass and its type."""
    for name, kind in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            yield from kinds(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}", str(kind)


def test_a_number_without_a_range_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError, match=r"train\.new"):
        check_numbers({"train.new": 5})


@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
@pytest.mark.parametrize("key", ["data.mix=[1,{}]", "data.per_episode={}"])
def test_numbers_beside_words_have_a_range_too(key: str, number: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key.partition('=')[0]}: expected"):
        laq_config([key.format(number)])


def test_a_flow_decoder_needs_a_decoder_that_sees_the_codes() -> None:
    with pytest.raises(ConfigError, match=r"^flow\.teacher: dis needs a decoder that attends to the codes"):
        laq_config(["preset=tiny", "flow.teacher=dis"])
    laq_config(["preset=tiny", "flow.teacher=dis", "model.kind=residual"])


def test_a_mistyped_key_of_a_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train:\n  stepz: 4\n")
    with pytest.raises(ConfigError, match=r"train\.stepz: no such key; did you mean train\.steps\?"):
        shared.resolve(LaqConfig, tmp_path, ["preset=mine"])


def test_the_yaml_of_a_configuration_gives_it_back(tmp_path: Path) -> None:
    config = laq_config(["preset=tiny", "data.datasets=[a,s3://b/c]", "data.mix=[1,2]"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert laq_config([], saved_config(tmp_path)) == config
    assert config.data.datasets == ["a", "s3://b/c"]


def test_a_saved_configuration_keeps_its_preset() -> None:
    saved = yaml.safe_load(to_yaml(laq_config(["preset=tiny"])))
    assert laq_config(["train.steps=9"], saved).train.steps == 9
    with pytest.raises(ConfigError, match="the run was started with 'tiny', got 'large'"):
        laq_config(["preset=large"], saved)


@pytest.mark.parametrize(
    ("section", "key", "now"),
    [
        ("data", "reading", "read_mode"),
        ("data", "ahead", "prefetch"),
        ("data", "window", "block"),
        ("val", "pictures", "images"),
        ("model", "output", "kind"),
    ],
)
def test_a_key_that_was_renamed_is_refused_by_its_new_name_and_read_from_older_runs(
    section: str, key: str, now: str
) -> None:
    with pytest.raises(
        ConfigError, match=f"^{section}.{key}: no such key; did you mean {section}.{now}[?] --print"
    ):
        laq_config([f"{section}.{key}=4"])
    config = laq_config(["preset=tiny"])
    saved = yaml.safe_load(to_yaml(config))
    saved[section][key] = saved[section].pop(now)
    assert laq_config([], saved) == config


def test_a_strategy_that_was_merged_is_refused_by_its_new_name_and_read_from_older_runs() -> None:
    with pytest.raises(
        ConfigError, match=r"^evaluate\.strategies: the figures of 'tokens' are drawn by compass"
    ):
        laq_config(["evaluate.strategies=[tokens]"])
    saved = yaml.safe_load(to_yaml(laq_config(["preset=tiny"])))
    saved["evaluate"]["strategies"] = ["tokens", "compass", "sequences", "examples"]
    assert laq_config([], saved).evaluate.strategies == ["compass", "codebook"]


def test_a_stranger_s_value_that_is_no_grammar_is_refused_in_a_line() -> None:
    saved = yaml.safe_load(to_yaml(laq_config(["preset=tiny"])))
    saved["data"]["camera"] = "${"
    with pytest.raises(ConfigError, match=r"^data\.camera: expected a plain value, got the interpolation"):
        laq_config([], saved)


def test_every_field_has_a_docstring() -> None:
    for source in (inspect.getsource(shared), inspect.getsource(module)):
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef):
                continue
            fields = [i for i, one in enumerate(node.body) if isinstance(one, ast.AnnAssign)]
            for i in fields:
                after = node.body[i + 1] if i + 1 < len(node.body) else None
                assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(node.body[i])}"


def test_leaves_are_the_values_under_their_dotted_keys() -> None:
    assert leaves({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
    assert "data.limit.train" in leaves(dataclasses.asdict(LaqConfig()))


@pytest.mark.parametrize(
    ("overrides", "saved"),
    [(["run.dir='${oc.env:HOME}'"], None), ([], {"preset": "tiny", "run": {"dir": "${oc.env:HOME}"}})],
)
def test_an_interpolation_is_refused_wherever_it_comes_from(overrides: list[str], saved: Any) -> None:
    """The configuration in a stranger's checkpoint must not read the environment."""
    with pytest.raises(ConfigError, match=r"^run\.dir: expected a plain value, got the interpolation"):
        laq_config(overrides, saved)


def test_a_control_rate_may_be_given_for_each_dataset(tmp_path: Path) -> None:
    for given in (
        ["data.control_rate={bridge: 5, droid: 15}"],
        ["data.control_rate.bridge=5", "data.control_rate.droid=15"],
    ):
        config = laq_config(given)
        assert config.data.control_rate == {"bridge": 5, "droid": 15}
        assert laq_config([], dataclasses.asdict(config)).data.control_rate == {"bridge": 5, "droid": 15}
    assert laq_config(["data.control_rate=5"]).data.control_rate == 5
    for wrong in (
        "data.control_rate.bridge=0",
        "data.control_rate={bridge: .inf}",
        "data.control_rate=often",
    ):
        with pytest.raises(ConfigError, match=r"^data\.control_rate"):
            laq_config([wrong])
