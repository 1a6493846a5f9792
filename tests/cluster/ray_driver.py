"""A process that drives a cluster and is killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

__all__ = ["mine_until_a_shard_is_there"]


def mine_until_a_shard_is_there(channel: Any, project: str, address: str, path: Path) -> None:
    """Run ``hins mine`` on a cluster, and be killed before the first shard that it has made is taken in."""
    from hins_memory.cli import app
    from hins_memory.mining.storage.evidence import EvidenceStore

    def die(store: EvidenceStore, folder: Path) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    EvidenceStore.adopt = die  # type: ignore[method-assign]
    app(["--project", project, "mine", "--ray", address, "--output", str(path)])
