"""Work on the machines of a Ray cluster (extra ``ray``): the stages' own functions, as tasks.

In: a cluster's address, and functions with what they are called on. Out: what they return, in order. No stage is
implemented here, and nothing that tasks exchange goes through the driver but paths and numbers.
"""

from hins_memory.cluster.connection import check_database, connect
from hins_memory.cluster.tasks import in_order
from hins_memory.cluster.workers import in_workers

__all__ = ["check_database", "connect", "in_order", "in_workers"]
