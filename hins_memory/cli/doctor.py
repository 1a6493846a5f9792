"""`hins doctor`: checks whether everything that the loop needs is installed, and names commands that repair it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Bars, Part, Result, command, table
from hins_memory.config import FILE_NAME, Settings
from hins_memory.errors import HinsError
from hins_memory.plugins.manager import broken_plugins, get_plugin_manager

__all__ = ["Check", "doctor", "examine"]

_DISTRIBUTION = "hins-memory"
_HYBRID = 'pip install "mem0ai[nlp]" fastembed && python -m spacy download en_core_web_sm'
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*;.*extra *== *['\"]([^'\"]+)['\"]")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what it is.
        ok: whether it works; None for information only.
        detail: what was found.
        fix: the command that repairs what failed, or adds what is optional.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """Yield every check in turn; the slow ones come last."""
    yield Check("python", None, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("hins-memory", None, importlib.metadata.version(_DISTRIBUTION))
    yield _guarded("settings", lambda: _settings(settings))
    yield from _plugins(settings)
    yield from _hybrid_search()
    yield _guarded("log", lambda: _log(settings))
    yield _guarded("torch", _torch)
    yield _guarded("encoder", lambda: _encoder(settings))


def _plugins(settings: Settings) -> Iterator[Check]:
    for name, reason in broken_plugins().items():
        yield Check(f"plugin {name}", False, reason, _fix(name, reason))
    missing, used = _missing_extras(), _frameworks_used(settings)
    for name, plugin in get_plugin_manager().list_name_plugin():
        if plugin is not None:
            yield _guarded(f"plugin {name}", partial(_plugin, name, missing.get(name, []), used))


def _plugin(name: str, lacking: list[str], used: set[str]) -> Check:
    """Return the verdict on a plugin that was loaded.

    Args:
        name: the plugin's name.
        lacking: distributions of its extra that are not installed.
        used: the frameworks that the project holds indexes of.
    """
    title, hooks = f"plugin {name}", get_plugin_manager().hook
    # The command that installs what the plugin lacks; "" if it lacks nothing, None if it does not say.
    command = next(
        (str(impl.function()) for impl in hooks.hins_missing.get_hookimpls() if impl.plugin_name == name), None
    )
    namers: list[Any] = [impl for impl in hooks.hins_agent_names.get_hookimpls() if impl.plugin_name == name]
    frameworks = {str(agent) for impl in namers for agent in impl.function()}
    absent = command != "" if command is not None else lacking == _extras().get(name)
    if not absent and not lacking:
        return Check(title, True, "loaded" + _framework(name))
    fix = command or _install(name)
    if not absent:
        return Check(title, False, f"its framework is there, but {', '.join(lacking)} is not installed", fix)
    if used & frameworks:
        return Check(title, False, "not installed, but agents of this project use it", fix)
    return Check(title, None, "not installed, optional", fix)


def _frameworks_used(settings: Settings) -> set[str]:
    """Return the frameworks whose indexes the project knows, by the first part of their keys."""
    from hins_memory.registry.registry import Registry

    try:
        return {index.agent_key.split(":")[0] for index in Registry(settings).indexes()}
    except HinsError:
        # The check of the log says what is wrong with it.
        return set()


def _hybrid_search() -> Iterator[Check]:
    """Yield what Mem0's own search by keywords and entities lacks; Mem0 warns of it, and searches by vectors alone."""
    modules = {"spacy": "spaCy", "en_core_web_sm": "spaCy's model en_core_web_sm", "fastembed": "fastembed"}
    lacking = [name for module, name in modules.items() if find_spec(module) is None]
    if _installed("mem0ai") is not None and lacking:
        yield Check(
            "mem0 hybrid search",
            None,
            f"without {', '.join(lacking)} Mem0 searches by vectors alone, not by keywords and entities; optional",
            _HYBRID,
        )


def _fix(plugin: str, reason: str) -> str:
    if plugin in _extras():
        return _install(plugin)
    module = re.search(r"No module named '([^'.]+)", reason)
    return f"pip install {module.group(1)}" if module else f"Update or uninstall the package of the plugin {plugin!r}."


def _install(extra: str) -> str:
    return f'pip install "{_DISTRIBUTION}[{extra}]"'


def _extras() -> dict[str, list[str]]:
    """Return the distributions that each extra of hins-memory asks for."""
    found: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires(_DISTRIBUTION) or ():
        if match := _REQUIREMENT.match(requirement):
            found.setdefault(match.group(2), []).append(match.group(1))
    return found


def _missing_extras() -> dict[str, list[str]]:
    """Return, for each extra that is not complete, the distributions that are missing."""
    missing: dict[str, list[str]] = {}
    for extra, names in _extras().items():
        for name in names:
            if _installed(name) is None:
                missing.setdefault(extra, []).append(name)
    return missing


def _installed(distribution: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def _framework(plugin: str) -> str:
    versions = [f"{name} {_installed(name)}" for name in _extras().get(plugin, ())]
    return f" ({', '.join(versions)})" if versions else ""


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check; an exception is its result, so that the other checks still run."""
    try:
        return check()
    except HinsError as error:
        return Check(name, False, error.problem, error.hint)
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}", f"pip install --force-reinstall {_DISTRIBUTION}")


def _settings(settings: Settings) -> Check:
    """Return which file of settings is read; one that is not valid is an error."""
    from hins_memory.loop.settings import LoopSettings

    file = settings.file()
    LoopSettings.from_file(file)
    return Check("settings", None, str(file.path or f"no {settings.root / FILE_NAME}: the defaults"))


def _log(settings: Settings) -> Check:
    from hins_memory.database.engine import open_database
    from hins_memory.log.reader import LogReader

    engine = open_database(settings.database_url)
    counts = LogReader(engine).counts()
    address = engine.url.render_as_string(hide_password=True)
    return Check("log", True, f"{address}: {counts.retrievals} retrievals, {counts.answers} answers")


def _torch() -> Check:
    import torch

    from hins_memory.encoders.encoder import bf16_supported

    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU with {torch.get_num_threads()} threads"
    bf16 = bf16_supported("cuda" if cuda else "cpu")
    return Check("torch", True, f"{torch.__version__} on {device}, bf16 {'yes' if bf16 else 'no (training is slower)'}")


def _encoder(settings: Settings) -> Check:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.encoders.starter import default_base
    from hins_memory.registry.registry import Registry

    current = Registry(settings).current()
    encoder = Encoder.load(current.path if current else default_base())
    shape = encoder.encode(["Does it work?"], role="query").shape
    return Check("encoder", True, f"{encoder.version} gives vectors of {shape[1]} numbers")


@command
def doctor(context: typer.Context) -> Result:
    """Look at the installation: versions, plugins, log and encoder. Exit status 1 if something has to be repaired."""
    settings = settings_of(context)
    with Bars() as bars:
        bars.waiting("examining")
        checks = list(examine(settings))
    signs = {True: "ok", False: "FAILED", None: ""}
    failed = [check for check in checks if check.ok is False]
    rows = [(check.name, signs[check.ok], check.detail) for check in checks]
    parts: list[Part] = [table(("", "", ""), rows)]
    parts += [f"{check.name}: {check.fix}" for check in failed]
    parts += [f"{check.name}, if you want it: {check.fix}" for check in checks if check.ok is None and check.fix]
    return Result({"ok": not failed, "checks": [asdict(check) for check in checks]}, tuple(parts), 1 if failed else 0)
