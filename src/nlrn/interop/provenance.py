"""The origin of a network's weights, for files that leave nlrn: name, checksum, and terms of use."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ..models.hub import is_hub_name, weights_from_hub
from ..models.nlrn import NLRN
from ..models.weights_file import ModelError, build, read_weights
from ..models.zoo import CLASSICAL, MODELS, WEIGHTS

# Keys of a weight file's metadata under which its author may state the terms.
TERMS_KEYS = ("licence", "license", "terms")
UNKNOWN_TERMS = "not stated in the weight file; ask its author"


@dataclass(frozen=True)
class Provenance:
    """A network and where its weights come from.

    Args:
        name: of `nlrn models`, or the name of the weight file without its suffix.
        model: the network in evaluation mode.
        data: the weight file.
        sha256: of the weight file.
        terms: the use of the weights that is allowed, or that nothing is known about it.
        card: the model card, if there is one beside the weights.
    """

    name: str
    model: NLRN
    data: bytes
    sha256: str
    terms: str
    card: Path | None


def read_network(name_or_path: str | Path, purpose: str) -> Provenance:
    """A network by a name of `nlrn models`, a weight file or a name on the Hub, with the origin of its weights.

    Args:
        name_or_path: as for `load_model`.
        purpose: what the network is for, named in errors.

    Raises:
        ModelError: a method without weights, and as `load_model`.
    """
    name = str(name_or_path)
    if name in CLASSICAL:
        raise ModelError(
            f"{name} has no weights, and {purpose} takes a network: {', '.join(MODELS)}, or a weight file"
        )
    if is_hub_name(name):
        path = weights_from_hub(name)
    else:
        path = WEIGHTS / MODELS[name].file if name in MODELS else Path(name_or_path)
    if not path.is_file():
        raise ModelError(f"no model and no weight file {name!r}; the models are: {', '.join(MODELS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    # The weights that come with nlrn have its terms under any name.
    known = {entry.sha256: (known_name, entry) for known_name, entry in MODELS.items()}.get(sha256)
    if name in MODELS and known is None:
        raise ModelError(f"{path} is damaged: its sha256 is not {MODELS[name].sha256}; install nlrn again")
    model = build(*read_weights(data, str(path)), str(path))
    card = path.with_suffix(".md")
    if known is not None:
        terms, card = known[1].licence, WEIGHTS / f"{known[0]}.md"
    else:
        terms = _stated_terms(data)
    named = known[0] if known is not None else path.stem
    return Provenance(named, model, data, sha256, terms, card if card.is_file() else None)


def _stated_terms(data: bytes) -> str:
    """The terms in the metadata of a weight file that was read before."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return next((metadata[key] for key in TERMS_KEYS if metadata.get(key)), UNKNOWN_TERMS)
