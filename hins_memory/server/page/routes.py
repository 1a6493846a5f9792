"""The page at `/`, the pages that it links, and what its buttons do."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

import hins_memory
from hins_memory.common.html import Html, paragraph
from hins_memory.errors import HinsError
from hins_memory.server.page.api_page import api_sections
from hins_memory.server.page.compare import Question
from hins_memory.server.page.forgery import COOKIE
from hins_memory.server.page.operator import Operator
from hins_memory.server.page.overview import Part, gate_reports, overview, rendered, version_sections
from hins_memory.server.problems import ApiError
from hins_memory.server.state import state_of

__all__ = ["router"]

#: No script runs, nothing is fetched, and no other site frames the page or gets its forms. Styles stand in the page.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_THRESHOLD = 0.1

router = APIRouter(include_in_schema=False)


def _changes(request: Request) -> bool:
    """Tell whether the page may change what serves: only where a key is needed, and there is an agent."""
    return bool(state_of(request).options.keys) and state_of(request).page.operator.can_change


def _page(request: Request, title: str, parts: list[Part], alerts: list[str] | None = None) -> HTMLResponse:
    state = state_of(request)
    text = rendered(
        "layout.html",
        title=title,
        parts=parts,
        alerts=alerts or [],
        here=request.url.path,
        version=hins_memory.__version__,
        project=state.settings.project,
        show_text=state.options.page.show_text,
    )
    return HTMLResponse(str(text), headers=_HEADERS)


@router.get("/")
def index(request: Request) -> HTMLResponse:
    """Show what serves, how well, what is recorded, and the versions."""
    state, page = state_of(request), state_of(request).page
    stats = state.recording.stats()
    parts = overview(state.settings, state.registry, stats, state.options.page.show_text)
    quality = next(part for part in parts if part.name == "quality")
    alerts = []
    if 'class="verdict bad"' in "".join(quality.content):
        alerts.append("Recent searches went worse than the gate measured: see how well it serves.")
    if stats.failing:
        alerts.append("The log cannot be written at present: events are kept and tried again.")
    parts.append(Part("compare", "Compare two versions", (_compare_form(request, {}),)))
    if _changes(request):
        names = [one.id for one in reversed(state.registry.versions()) if not one.manifest.scope]
        forms = rendered("change_forms.html", job=page.operator.job, names=names, agent=state.options.page.agent)
        parts.append(Part("change", "Change what serves", (forms,)))
    elif page.operator.job is not None:
        parts.append(Part("change", "Changes", (paragraph(f"{page.operator.job.what}: {page.operator.job.state}."),)))
    return _page(request, "What serves, and how well", parts, alerts)


def _compare_form(request: Request, given: dict[str, str]) -> Html:
    names = state_of(request).page.comparer.names()
    values = {"query": "", "owner": "", "left": names[0], "right": names[min(1, len(names) - 1)]}
    return rendered("compare_form.html", names=names, **{**values, "threshold": str(_THRESHOLD), **given})


@router.get("/compare")
def compare(
    request: Request, query: str = "", owner: str = "", left: str = "", right: str = "", threshold: str = ""
) -> HTMLResponse:
    """Show what two versions return for one query, side by side."""
    state, page = state_of(request), state_of(request).page
    given = {"query": query, "owner": owner, "left": left, "right": right, "threshold": threshold}
    form = _compare_form(request, {name: value for name, value in given.items() if value})
    parts = [Part("compare", "What to compare", (form,))]
    if not query:
        return _page(request, "Compare two versions", parts)
    try:
        asked = Question(query, owner, (left, right), float(threshold or _THRESHOLD))
        sides, searched, there = page.comparer.compare(asked)
    except (HinsError, ValueError) as error:
        return _page(request, "Compare two versions", parts, [str(error)])
    said = f"By cosine alone, over {searched} memories"
    said += f", the latest of {there}." if searched < there else "."
    shown = rendered("sides.html", sides=sides, show_text=state.options.page.show_text)
    parts.insert(0, Part("results", "Results", (paragraph(said), shown)))
    return _page(request, "Compare two versions", parts)


@router.get("/versions/{id}")
def version(request: Request, id: str) -> HTMLResponse:
    """Show what is known of a version."""
    state = state_of(request)
    found = next((one for one in state.registry.versions() if one.id == id), None)
    if found is None:
        raise ApiError(404, f"There is no version {id!r} here: the overview lists them.")
    return _page(request, f"Version {found.id}", version_sections(found.id, found.manifest))


@router.get("/reports/{key}")
def report(request: Request, key: str) -> HTMLResponse:
    """Show a report of the gate, which holds texts of the log."""
    state = state_of(request)
    found = gate_reports(state.settings).get(key) if state.options.page.show_text else None
    if found is None:
        raise ApiError(404, "There is no such report, or the server does not show texts: start it with --show-text.")
    return HTMLResponse(found[0].read_text(encoding="utf-8"), headers=_HEADERS)


@router.get("/docs")
def api(request: Request) -> HTMLResponse:
    """Show the endpoints and their fields."""
    note = paragraph("For programs: /openapi.json.")
    parts = [Part("openapi", "Schema", (note,)), *api_sections(request.app.openapi())]
    return _page(request, "API", parts)


@router.get("/confirm")
def confirm(request: Request, action: str = "", version: str = "") -> Response:
    """Ask whether a swap or a rollback is meant."""
    state, page = state_of(request), state_of(request).page
    known = {one.id for one in state.registry.versions()}
    if not _changes(request) or action not in ("swap", "rollback") or (action == "swap" and version not in known):
        raise ApiError(404, "There is nothing to confirm: begin on the overview.")
    agent = state.options.page.agent
    what = (
        f"{agent} is to serve with {version}, if the gate lets it pass. What served before stays for a rollback."
        if action == "swap"
        else f"{agent} is to return to what served before the last swap, with the memories that came since."
    )
    cookie = page.tokens.cookie(request.cookies.get(COOKIE, ""))
    form = rendered(
        "confirm.html",
        what=what,
        action=action,
        version=version if action == "swap" else "",
        token=page.tokens.token(cookie),
        button=f"Swap to {version}" if action == "swap" else "Roll back",
    )
    answer = _page(request, "Is this meant?", [Part("confirm", "Confirm", (form,))])
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", secure=secure, path="/")
    return answer


@router.post("/swap")
async def swap(request: Request) -> Response:
    """Start a swap that was confirmed."""
    form = await _confirmed(request)
    return await _started(request, lambda operator: operator.swap(form.get("version", "")))


@router.post("/rollback")
async def rollback(request: Request) -> Response:
    """Start a rollback that was confirmed."""
    await _confirmed(request)
    return await _started(request, lambda operator: operator.rollback())


async def _confirmed(request: Request) -> dict[str, str]:
    """Return the form of a request, if it is this page's own."""
    if not _changes(request):
        raise ApiError(404, "There is no such address.")
    form = {name: values[0] for name, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
    tokens, cookie = state_of(request).page.tokens, request.cookies.get(COOKIE, "")
    if why := tokens.refusal(dict(request.headers), cookie, form.get("token", "")):
        raise ApiError(403, why, code="forged")
    return form


async def _started(request: Request, start: Callable[[Operator], bool]) -> Response:
    if not await run_in_threadpool(start, state_of(request).page.operator):
        raise ApiError(409, "Another swap or rollback is running: wait until it has ended.")
    return RedirectResponse("/#change", status_code=303, headers=_HEADERS)
