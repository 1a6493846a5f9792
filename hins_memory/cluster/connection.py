"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import logging
import os
from typing import Any

from hins_memory.errors import ConfigError

__all__ = ["check_database", "connect", "load_ray"]


def load_ray() -> Any:
    """Return the module ray.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        # Ray starts no cluster for itself here; where it does (address "local"), it is not to report home.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed.", 'Run: pip install "hins-memory[ray]"') from error
    return ray


def connect(address: str) -> Any:
    """Connect this process to a cluster until it ends, and return the module ray.

    A process that is connected already, to whatever cluster, stays so. The workers keep what they have loaded as long
    as the process is connected.

    Args:
        address: as for ``ray.init``: ``auto``, ``HOST:PORT`` of a cluster that this host is a node of,
            ``ray://HOST:PORT``, or ``local`` for a cluster of this machine alone that ends with the process.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    ray = load_ray()
    if ray.is_initialized():
        return ray
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ConfigError(
            f"There is no Ray cluster at {address!r}: {reason}.",
            "Start one (`ray start --head`, then `ray start --address HOST:PORT` on other machines), or use 'local'.",
        ) from error
    return ray


def check_database(ray: Any, backend: str) -> None:
    """Refuse a database that is a file where the cluster has nodes on other hosts.

    Args:
        ray: the module, connected.
        backend: the database's kind, as SQLAlchemy names it.

    Raises:
        ConfigError: nodes could not read it.
    """
    hosts = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if backend == "sqlite" and len(hosts) > 1:
        raise ConfigError(
            f"The log is an SQLite file, which the cluster's {len(hosts)} hosts cannot share.",
            "Keep it in PostgreSQL (HINS_LOG_URL), or leave --ray out.",
        )
