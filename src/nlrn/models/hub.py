"""Weight files on the Hugging Face Hub, by names `hf://user/repository[@revision][/file]`."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .weights_file import ModelError

PREFIX = "hf://"
# The name by the Hub's conventions.
DEFAULT_FILE = "model.safetensors"
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"hf://({_WORD}/{_WORD})(?:@([A-Za-z0-9][A-Za-z0-9._-]*))?(?:/(.+))?")


@dataclass(frozen=True)
class HubName:
    """A file of a repository: `user/name`, a revision (`None` is its main one), and the file's path."""

    repository: str
    revision: str | None
    file: str


def is_hub_name(name: str) -> bool:
    """True for a name on the Hub."""
    return name.startswith(PREFIX)


def parse_hub_name(name: str) -> HubName:
    """The parts of a name on the Hub.

    Raises:
        ModelError: another form, or a file that is no weight file.
    """
    found = _NAME.fullmatch(name)
    file = found[3] or DEFAULT_FILE if found else ""
    if found is None or not file.endswith(".safetensors") or ".." in file.split("/"):
        raise ModelError(f"expected hf://user/repository[@revision][/file.safetensors], got {name!r}")
    return HubName(found[1], found[2], file)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """A scope in which huggingface_hub does not report each of its attempts to reach the Hub."""
    from huggingface_hub.utils import logging as hub_logging

    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)


def weights_from_hub(name: str) -> Path:
    """The local copy of a weight file, from huggingface_hub's cache or else downloaded into it.

    Args:
        name: `hf://user/repository[@revision][/file]`, by default `model.safetensors` of the main revision.

    Raises:
        ModelError: a bad name, no such repository, revision or file, no network, or no package huggingface_hub.
    """
    where = parse_hub_name(name)
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise ModelError(f"{name} needs the package huggingface_hub: pip install 'nlrn[hub]'") from error

    try:
        with without_warnings():
            found = huggingface_hub.hf_hub_download(where.repository, where.file, revision=where.revision)
        return Path(found)
    except errors.RepositoryNotFoundError as error:
        reason: str = "no such repository, or no access to it"
        cause: Exception = error
    except errors.RevisionNotFoundError as error:
        reason, cause = f"no revision {where.revision} there", error
    except errors.LocalEntryNotFoundError as error:
        reason, cause = "not in the local cache, and the Hub cannot be reached", error
    except errors.EntryNotFoundError as error:
        reason, cause = f"no file {where.file} there", error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason, cause = " ".join(str(error).split()) or type(error).__name__, error
    raise ModelError(f"cannot load {name}: {reason}") from cause
