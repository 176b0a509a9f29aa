"""Publishing a network on the Hugging Face Hub: weights, configuration and a card that states the terms.

Reading is `load_model("hf://user/repository")`, in `nlrn.models.hub`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..models.hub import DEFAULT_FILE, parse_hub_name, without_warnings
from ..models.weights_file import config_to_json
from ..models.zoo import WEIGHTS
from .provenance import Provenance, read_network


def push(model: str | Path, repository: str, *, private: bool = False, message: str | None = None) -> str:
    """Publishes a network in one commit: `model.safetensors`, `config.json` and `README.md`, the model's card.

    The repository is created if it does not exist. The token is that of huggingface_hub (`hf auth login` or
    `HF_TOKEN`).

    Args:
        model: a name of `nlrn models` or a weight file; a `.md` file beside it is its card.
        repository: `user/name`.
        private: whether a new repository is private.
        message: of the commit.

    Returns:
        The name by which `load_model` loads it.

    Raises:
        ModelError: a method without weights, a bad name, and as `load_model`.
        ImportError: the package huggingface_hub is not installed.
        OSError: the Hub cannot be reached, or it refuses; nothing is published.
    """
    name = f"hf://{repository}"
    if repository.count("/") != 1 or parse_hub_name(name).repository != repository:
        raise ValueError(f"expected a repository user/name, got {repository!r}")
    files = files_to_publish(read_network(model, "push"), repository)
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ImportError("push needs the package huggingface_hub: pip install 'nlrn[hub]'") from error

    api = huggingface_hub.HfApi(library_name="nlrn")
    operations = [huggingface_hub.CommitOperationAdd(path, data) for path, data in files.items()]
    try:
        with without_warnings():
            api.create_repo(repository, private=private, exist_ok=True)
            api.create_commit(repository, operations, commit_message=message or "Publish with nlrn")
    except Exception as error:  # those of its HTTP client, whose package differs by version, are not OSErrors
        text = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"cannot publish {repository}: {text}") from error
    return name


def files_to_publish(source: Provenance, repository: str) -> dict[str, bytes]:
    """The files of a repository by name."""
    config = {"library_name": "nlrn", "model_type": "nlrn", **json.loads(config_to_json(source.model.config))}
    files = {
        DEFAULT_FILE: source.data,
        "config.json": (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        "README.md": _card(source, repository).encode(),
    }
    if source.card is not None and source.card.parent == WEIGHTS:
        files["LICENSE.md"] = (WEIGHTS / "LICENSE.md").read_bytes()  # to which the card links
    return files


def _card(source: Provenance, repository: str) -> str:
    """The card in the form that the Hub reads, with how to load the model and the terms."""
    about = {
        "library_name": "nlrn",
        "license": "other",
        "license_name": "terms-of-the-weights",
        "pipeline_tag": "image-to-image",
        "tags": ["image-restoration", source.model.config.task],
    }
    # JSON is YAML.
    head = "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in about.items()), "---", ""])
    body = source.card.read_text(encoding="utf-8") if source.card else f"# {source.name}\n"
    body = re.sub(r"\A---\n.*?\n---\n", "", body, flags=re.DOTALL)  # of a card that was on the Hub before
    return f"""{head}
{body.strip()}

## Use

```python
import nlrn

model = nlrn.load_model("hf://{repository}")
```

Terms of the weights: {source.terms}.
sha256 of `{DEFAULT_FILE}`: `{source.sha256}`
"""
