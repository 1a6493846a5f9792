"""Spans of OpenTelemetry, where its package is installed; nothing otherwise.

The program that hins-memory runs in decides where spans go (`opentelemetry.trace.set_tracer_provider`, or
``opentelemetry-instrument``). Spans hold versions, counts and names of stages, and no texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["span", "traced"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


@lru_cache(maxsize=1)
def _trace() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace


def span(name: str, **attributes: str | int | float | bool) -> contextlib.AbstractContextManager[Any]:
    """Return a span to enter; an exception that leaves it is noted by its kind alone, because messages may hold texts.

    Args:
        name: of what happens, e.g. ``hins.encode``.
        attributes: what is known of it, by names without the prefix ``hins.``.
    """
    trace = _trace()
    if trace is None:
        return contextlib.nullcontext()
    return _span(trace, name, {f"hins.{key}": value for key, value in attributes.items()})


def traced(name: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator that makes each call of a function a span."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with span(name):
                return function(*args, **kwargs)

        return call

    return decorate


@contextlib.contextmanager
def _span(trace: Any, name: str, attributes: dict[str, Any]) -> Any:
    tracer = trace.get_tracer("hins_memory")
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise
