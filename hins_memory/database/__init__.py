"""The project's database: engine, tables, migrations, and leases between processes and hosts.

In: a SQLAlchemy URL. Out: an engine at the newest schema, and leases held in it.
"""

from hins_memory.database.engine import open_database, reading
from hins_memory.database.leases import LeaseHeldError, Leases

__all__ = [
    "LeaseHeldError",
    "Leases",
    "open_database",
    "reading",
]
