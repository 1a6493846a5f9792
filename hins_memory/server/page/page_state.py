"""What the page's requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.server.page.compare import Comparer
from hins_memory.server.page.forgery import FormTokens
from hins_memory.server.page.operator import Operator

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.registry.registry import Registry
    from hins_memory.server.page.settings import PageSettings

__all__ = ["PageState"]


class PageState:
    """What the page's requests share: what swaps, what compares, and the tokens of forms.

    Args:
        settings: the project.
        registry: its versions.
        page: what the page may show and do.
    """

    def __init__(self, settings: Settings, registry: Registry, page: PageSettings) -> None:
        self.operator = Operator(settings, page)
        self.comparer = Comparer(settings, registry)
        self.tokens = FormTokens()
