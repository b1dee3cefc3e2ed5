"""Downloads models from the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from albert_jax.checkpoints.formats.hf_sentences import SENTENCE_FILES

PREFIX = "hf:"
_CONFIG = ["config.json", "spiece.model", "vocab.txt", "tokenizer.json", "tokenizer_config.json",
           *SENTENCE_FILES]  # fmt: skip
# The first of these that a repository has is fetched. Code is never fetched.
_WEIGHTS = (["model*.safetensors", "model.safetensors.index.json"], ["pytorch_model*.bin*"])


def fetch(name: str) -> Path:
    """Fetches "hf:OWNER/NAME", or "hf:OWNER/NAME@REVISION", into the Hub's local cache.

    Raises:
      ValueError: if there is no such model, or the Hub cannot be reached and the model is not in
        the cache.
    """
    repo, _, revision = name.removeprefix(PREFIX).partition("@")
    if ".." in revision.split("/") or revision.startswith("/"):
        raise ValueError(f"{name}: {revision!r} is not a valid name of a revision")
    try:
        for patterns in _WEIGHTS:
            folder = Path(
                snapshot_download(
                    repo, revision=revision or None, allow_patterns=_CONFIG + patterns
                )
            )
            if any(any(folder.glob(pattern)) for pattern in patterns):
                break
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name}: cannot be fetched from the Hugging Face Hub: {reason}"
        ) from None
    return folder
