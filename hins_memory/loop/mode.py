"""How a round trains where its mode is `auto`, and the encoder that it begins as: what is stored decides."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.encoders.encoder import encoder_version
from hins_memory.errors import ConfigError
from hins_memory.plugins.manager import capabilities_of
from hins_memory.training.settings import DOCUMENTS_STAY

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.training.settings import Mode

__all__ = ["chosen_mode", "training_base"]

logger = logging.getLogger(__name__)


def chosen_mode(mode: Mode, source: EncoderSource, serving: Encoder, version: str, agent: Agent | None = None) -> Mode:
    """Return a mode of training for `auto`: `tower`, or `lora` where a tower would not do; another mode as it is.

    A tower leaves the stored vectors as they are. Where the swap has to embed everything again in any case, because
    the framework's own encoder serves, or another base was asked for, `lora` finds more for the same price.

    Args:
        mode: what was asked for.
        source: the project's encoders, with the base that was asked for.
        serving: the encoder that the round compares with.
        version: the version that serves the project, "" where that is not known.
        agent: the live agent, if there is one.

    Raises:
        ConfigError: the mode leaves the stored vectors as they are, and the agent's adapter cannot serve that.
    """
    cannot = ""
    if agent is not None and "tower" not in capabilities_of(agent.name):
        cannot = f"the adapter of {agent.name} cannot embed queries with another encoder than memories"
    if mode in DOCUMENTS_STAY and cannot:
        raise ConfigError(f"The mode {mode!r} cannot be served: {cannot}.", "Train in the mode 'lora', or 'auto'.")
    if mode not in ("auto", *DOCUMENTS_STAY):
        return mode
    why = cannot or _reason_against(source, serving, version)
    if mode != "auto":
        if why:
            logger.warning("The mode %r was asked for, although %s.", mode, why)
        return mode
    if why:
        logger.warning("This round trains in the mode 'lora', and its swap embeds all memories again: %s.", why)
    return "lora" if why else "tower"


def _reason_against(source: EncoderSource, serving: Encoder, version: str) -> str:
    """Return why no tower can be trained, or would be of no use; "" where it can."""
    from hins_memory.training.tower.model import one_sided

    if not version:
        return "no encoder that is known here serves a store of this project yet"
    if source.source(version) is None:
        return f"the memories were embedded by {version}, which is not at hand (--base names a model of your own)"
    if not one_sided(serving.model):
        return f"{serving.version} treats queries and documents differently already"
    if source.model is not None:
        asked = encoder_version(source.model)
        if asked not in (serving.version, serving.space, encoder_version(source.trained_from(version))):
            return f"the memories were embedded by {serving.space}, and training is to begin as {source.model}"
    return ""


def training_base(mode: Mode, source: EncoderSource, serving: Encoder, version: str) -> tuple[str, tuple[str, ...]]:
    """Return what a training begins as, and which conversations that has learned from.

    Where the stored vectors stay, queries are trained on the encoder that made them, whatever base was asked for. What
    this encoder has learned from cannot be held out.

    Args:
        mode: as `chosen_mode` returns it.
        source: the project's encoders, with the base that was asked for.
        serving: the encoder that the round compares with.
        version: the version that serves the project, "" where that is not known.

    Returns:
        The encoder as for `Encoder.load`, and digests of conversations.
    """
    base = source.model or source.trained_from(version)
    if mode not in DOCUMENTS_STAY:
        return _absolute(base), ()
    parent = serving.space if mode == "tower" else serving.version
    known = [one.manifest.trained_conversations for one in source.registry.versions() if one.id == parent]
    found = source.source(parent) or source.source(serving.version) or base
    return _absolute(found), tuple(known[0]) if known else ()


def _absolute(base: str | Path) -> str:
    """Return an encoder's folder, or its name, as it is known to processes that work elsewhere."""
    folder = Path(base).expanduser()
    return str(folder.absolute()) if folder.is_dir() else str(base)
