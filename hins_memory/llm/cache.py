"""Replies kept on disk under the digest of what was asked; safe for many processes at once and for kill -9."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ReplyCache"]

logger = logging.getLogger(__name__)


class ReplyCache:
    """A content-addressed store: the same question finds the reply that was given before.

    Each reply is a file of its own that appears whole or not at all. A file that cannot be read counts as absent and
    is written anew. A reply that cannot be written is not kept, which costs a later run and nothing else.

    Args:
        folder: where the replies are; made when the first one is kept.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder).expanduser()
        self._warned = False

    def get(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the reply kept for a question, any JSON object; None where there is none."""
        try:
            found = json.loads(self._path(question).read_text(encoding="utf-8"))["reply"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, question: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Keep the reply to a question."""
        path = self._path(question)
        # Two threads of a process may keep the same reply at once, so the temporary name has both.
        half = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                half.write_bytes(json.dumps({"question": question, "reply": reply}).encode())
                os.replace(half, path)
            finally:
                half.unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                logger.warning("Replies cannot be kept in %s: %s", self._folder, error)
            self._warned = True

    def _path(self, question: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"
