"""Models of transformers to compare ours with."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers

from albert_jax.config import ModelConfig

CLASSES = ("Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification",
           "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")  # fmt: skip


def hf_model(config: ModelConfig, end: str = "ForPreTraining", seed: int = 0, **extra: Any) -> Any:
    """transformers' ALBERT of these sizes, its weights large enough for differences to show."""
    torch.manual_seed(seed)
    values: dict[str, Any] = dataclasses.asdict(config) | {"classifier_dropout_prob": 0.0} | extra
    hf_config = transformers.AlbertConfig(**values)
    return scaled(getattr(transformers, f"Albert{end}")(hf_config))


def scaled(model: Any, factor: float = 5.0) -> Any:
    """The model with larger kernels, and biases and norms that are not 0 and 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def saved(model: Any, directory: Path) -> Path:
    """The directory, with the model in it."""
    model.save_pretrained(directory)
    return directory
