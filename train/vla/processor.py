"""The processor of a vision-language model, from a hub id or a directory.

`AutoProcessor` needs torchvision for every family with a video processor, although no video is shown here.
Without torchvision, the family's own processor class is built from its image processor, tokenizer and chat
template, without a video processor: the same code makes the same tokens.
"""

from __future__ import annotations

import inspect
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import cached_file, logging

from oxcart.shards.errors import ConfigError

VIDEO = "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"


def load_processor(model: str) -> Any:
    """The processor of a model.

    Args:
        model: hub id or directory.

    Raises:
        ConfigError: the model cannot be found, its family is unknown, or it has no chat template.
    """
    quieten()
    try:
        if find_spec("torchvision") is not None:
            processor = AutoProcessor.from_pretrained(model)
        else:
            family = AutoConfig.from_pretrained(model).model_type
            if family not in PROCESSOR_MAPPING_NAMES:
                raise ConfigError(f"model: {model} is a {family}, which has no image processor")

            kind = getattr(transformers, PROCESSOR_MAPPING_NAMES[family])
            images = AutoImageProcessor.from_pretrained(model, backend="pil")
            tokenizer = AutoTokenizer.from_pretrained(model)
            settings, _ = kind.get_processor_dict(model)
            template = settings.get("chat_template") or tokenizer.chat_template
            own = {name: settings[name] for name in ("image_seq_len",) if name in settings}
            processor = build_processor(kind, images, tokenizer, template, **own)
    except ConfigError:
        raise
    except Exception as error:  # whatever a file or a repository of others makes transformers raise
        raise not_there(model, error) from error
    if getattr(processor, "image_processor", None) is None:
        raise ConfigError(f"model: {model} has no image processor; choose a vision-language model")
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise ConfigError(
            f"model: the processor of {model} has no chat template; choose an instruction-tuned model, or "
            "put a chat_template.jinja beside the tokenizer"
        )
    return processor


def check_fast(processor: Any, model: str, device: torch.device) -> None:
    """Refuse an image processor that works through PIL for a GPU, which would wait for it.

    Args:
        processor: a processor of `load_processor`.
        model: name of the model, for messages.
        device: device that trains.

    Raises:
        ConfigError: the device is a GPU, and torchvision or the family's fast image processor is missing.
    """
    images = processor.image_processor
    if device.type != "cuda" or getattr(images, "backend", "pil") != "pil":
        return
    remedy = "install torchvision: pip install torchvision"
    if find_spec("torchvision") is not None:
        remedy = "its family has no other; choose another model, or train.device=cpu"
    raise ConfigError(
        f"model: the image processor of {model}, {type(images).__name__}, works through PIL, which "
        f"a GPU would wait for; {remedy}"
    )


def build_processor(kind: Any, images: Any, tokenizer: Any, template: str | None, **own: Any) -> Any:
    """A processor of a family's class without a video processor.

    Args:
        kind: the class.
        images: its image processor.
        tokenizer: its tokenizer.
        template: its chat template.
        own: further arguments of the class.
    """

    def init(self: Any, image_processor: Any, tokenizer: Any, chat_template: Any = None, **more: Any) -> None:
        # The mixin takes its parts from the signature, in which there is no video processor.
        kind.__init__(self, image_processor, tokenizer, None, chat_template=chat_template, **more)

    given = inspect.signature(kind.__init__)
    kept = [one for name, one in given.parameters.items() if name != "video_processor"]
    init.__signature__ = given.replace(parameters=kept)  # type: ignore[attr-defined]
    # Some families' own method asks their video processor for its defaults first.
    parts = {"__init__": init, "apply_chat_template": ProcessorMixin.apply_chat_template}
    without = type(kind.__name__, (kind,), {**parts, "__module__": kind.__module__})
    return without(images, tokenizer, chat_template=template, **own)


def save_processor(processor: Any, directory: Path, source: str | None) -> None:
    """Write a processor as `from_pretrained` reads it.

    Args:
        processor: a processor of `load_processor`.
        directory: folder to write to.
        source: the model that it was read from, whose video settings are kept.
    """
    processor.save_pretrained(directory)
    if source is None or getattr(processor, "video_processor", None) is not None:
        return

    missing = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    if found := cached_file(source, VIDEO, **missing):
        shutil.copyfile(found, directory / VIDEO)
    elif found := cached_file(source, PROCESSOR, **missing):
        video = json.loads(Path(found).read_text("utf-8")).get("video_processor")
        if video is not None:
            (directory / VIDEO).write_text(json.dumps(video, indent=2) + "\n", "utf-8")


def quieten() -> None:
    """Turn off progress bars and advice of transformers, which do not belong in our output."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def not_there(model: str, error: Exception) -> ConfigError:
    """Make the error for a model that cannot be read."""
    reason = " ".join(str(error).split())[:200]
    if Path(model).is_dir():
        return ConfigError(f"model: {model} cannot be read as a vision-language model: {reason}")
    return ConfigError(
        f"model: {model!r} is neither a directory nor a model that this machine has downloaded, or can "
        f"download now, from the Hugging Face hub; run hf download {model}, or pass a directory: {reason}"
    )
