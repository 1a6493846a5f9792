"""The base class of an adapter's plugin: derive from `AdapterPlugin`; the entry point names an instance."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from hins_memory.errors import AgentError
from hins_memory.plugins.hookspecs import hookimpl
from hins_memory.sdk.options import AttachOptions

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.plugins.protocols import Agent

__all__ = ["AdapterPlugin", "AttachingModule", "Capability"]

#: What an adapter can do: record a framework's use; embed with the project's encoder; change the encoder of queries
#: only, over the stored vectors as they are; change the stored vectors too.
Capability = Literal["capture", "serve", "tower", "swap"]


class AttachingModule(Protocol):
    """The functions of the module that `AdapterPlugin.attaching` names."""

    def attach_with(self, memory: Any, options: AttachOptions) -> Any:
        """Attach to an object of the framework and return it."""

    def detach(self, memory: Any) -> Any:
        """Restore an object exactly as it was, and return it."""

    def agent_of(self, memory: Any) -> Agent | None:
        """Return the agent behind an attached object; None where its store cannot be swapped."""


class AdapterPlugin:
    """All hooks of an adapter. Override the methods that the framework has a way to do.

    Importing the module of a plugin must import neither the framework nor torch: name another module in `attaching`, or
    import them in the methods.
    """

    #: the framework's name, e.g. ``mem0``
    name = ""
    #: the package that it is imported as
    package = ""
    #: the class of the framework's objects, as ``module:Class``; before the module is imported, nothing can be one
    memory_class = ""
    #: what installs it, and what installs the packages that it needs
    install = install_needed = ""
    #: the module with the functions of `AttachingModule`, imported when one is needed
    attaching = ""
    #: what the adapter can do; `hins_memory.testing` checks each that is named here
    capabilities: frozenset[Capability] = frozenset({"capture", "serve", "tower", "swap"})

    def is_ours(self, memory: Any) -> bool:
        """Return whether an object is one of the framework's; override it where `memory_class` cannot tell."""
        if not self.memory_class:
            raise NotImplementedError
        module, _, name = self.memory_class.partition(":")
        return module in sys.modules and isinstance(memory, getattr(sys.modules[module], name))

    def attach(self, memory: Any, options: AttachOptions) -> Any:
        """Attach to an object of the framework and return it.

        Raises:
            AgentError: it cannot be attached as asked.
        """
        return self._functions.attach_with(memory, options)

    def detach(self, memory: Any) -> Any:
        """Restore an object exactly as it was, and return it.

        Raises:
            AgentError: it is not attached.
        """
        return self._functions.detach(memory)

    def agent_of(self, memory: Any) -> Agent | None:
        """Return the agent behind an attached object; None where its store cannot be swapped."""
        return self._functions.agent_of(memory) if self.attaching else None

    @property
    def _functions(self) -> AttachingModule:
        return cast("AttachingModule", import_module(self.attaching))

    def open(self, settings: Settings, config: Mapping[str, Any] | None) -> Any:
        """Open the project's store for the command line; None where the framework cannot be opened by name."""
        return None

    def missing(self) -> str:
        """Return the command that installs the framework; "" when it is installed."""
        return self.install if self.package and find_spec(self.package) is None else ""

    def require(self) -> None:
        """Import the framework.

        Raises:
            AgentError: it, or a package that it needs, is not installed; with the command that installs it.
        """
        try:
            import_module(self.package)
        except ModuleNotFoundError as error:
            if error.name == self.package:
                problem, command = f"{self.package} is not installed.", self.install
            else:
                problem = f"{self.package} is installed, but {error.name}, which it needs, is not."
                command = self.install_needed or self.install
            raise AgentError(problem, f"Install it with: {command}") from error

    def exported(self, package: str, homes: Mapping[str, str], name: str) -> Any:
        """Return what an adapter's package has under a name, for its ``__getattr__``: it imports the framework.

        Args:
            package: the adapter's own package.
            homes: the module of the package that each name is in.
            name: the name.

        Raises:
            AttributeError: there is no such name.
            AgentError: as `require`.
        """
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        self.require()
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    @hookimpl
    def hins_agent_names(self) -> list[str]:
        """Name the framework."""
        return [self.name]

    @hookimpl
    def hins_missing(self) -> str:
        """Return the command that installs the framework; "" when it is installed."""
        return self.missing()

    @hookimpl
    def hins_attach(self, memory: Any, options: Mapping[str, Any]) -> Any:
        """Attach to an object of the framework; None for any other."""
        return self.attach(memory, AttachOptions.of(self.name, options)) if self.is_ours(memory) else None

    @hookimpl
    def hins_detach(self, memory: Any) -> Any:
        """Restore an object of the framework; None for any other."""
        return self.detach(memory) if self.is_ours(memory) else None

    @hookimpl
    def hins_agent(self, memory: Any) -> Agent | None:
        """Return the agent behind an object of the framework; None for any other."""
        return self.agent_of(memory) if self.is_ours(memory) else None

    @hookimpl
    def hins_open_agent(self, name: str, settings: Settings, config: Mapping[str, Any] | None) -> Any:
        """Open the framework's store by its name; None for any other."""
        return self.open(settings, config) if name == self.name else None
