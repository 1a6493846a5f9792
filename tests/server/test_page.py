"""The page: what it shows and hides, who may change what serves, and how a real browser draws it."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
import html5lib
from fastapi.testclient import TestClient
from live_server import served

from hins_memory.common.html import templates
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.copies import writing_copy
from hins_memory.log.writer import LogWriter
from hins_memory.registry.registry import Registry
from hins_memory.server.app import create_app
from hins_memory.server.page.settings import PageSettings
from hins_memory.server.settings import ServeSettings
from hins_memory.types import Answer, Memory, RankedMemory, Retrieval, Scope, now

ANN = Scope(user="ann")
SECRETS = ("oboe", "Which instrument", "The answer")
KEY = {"authorization": "Bearer secret"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def settings(tmp_path: Path, tiny_folder: Path) -> Settings:
    found = Settings(home=tmp_path, project="p")
    registry, engine = Registry(found), open_database(found.database_url)
    version = registry.add(shutil.copytree(tiny_folder, tmp_path / "one"), {"base": "tiny", "mode": "lora"})
    registry.record_gate(version.id, {"passed": True, "gain": 0.05, "ndcg": 0.6, "queries": 40})
    registry.promote(version.id)
    memories = [Memory(f"m{n}", ANN, "c", f"Ann plays the oboe <b>{n}</b>", time=now()) for n in range(3)]
    results = (RankedMemory("m1", memories[1].text, 0.5),)
    search = Retrieval(ANN, "Which instrument?", results, version.id, id="s1")
    LogWriter(engine).write([*memories, search, Answer("s1", "The answer: oboe.")])
    return found


def client(settings: Settings, keys: tuple[str, ...] = (), **page: Any) -> TestClient:
    options = ServeSettings(keys=keys, page=PageSettings(**page))
    return TestClient(create_app(settings, options), base_url="http://localhost", headers=KEY if keys else None)


def version_of(settings: Settings) -> str:
    return Registry(settings).current_id()


def test_pages_are_valid_run_nothing_and_show_no_text(settings: Settings) -> None:
    name = version_of(settings)
    report = settings.root / "gate.html"
    with writing_copy(settings.root, open_database(settings.database_url), report, "hins gate --report"):
        report.write_text(f"<title>{name} against stock</title>The oboe.", encoding="utf-8")
    asking = f"/compare?query=oboe+now&owner=ann&left={name}&right={name}&threshold=2"
    hidden, shown = client(settings), client(settings, show_text=True)
    for address in ("/", "/compare", asking, f"/versions/{name}", "/docs"):
        answer = hidden.get(address)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        html5lib.HTMLParser(strict=True).parse(answer.text)
        assert not re.search(r"<script|<link(?! rel=\"icon\" href=\"data:)|https?://|\son\w+=", answer.text)
        for secret in SECRETS:
            assert secret not in answer.text.replace('value="oboe now"', "")
        check_accessible(answer.text)
    overview = hidden.get("/").text
    assert "passed, +5.0 points" in overview
    assert "/reports/" not in overview
    # With the operator's word they are there, escaped.
    assert "oboe &lt;b&gt;1&lt;/b&gt;" in shown.get(asking).text
    assert "(below the threshold)" in shown.get(asking).text
    (address,) = re.findall(r'href="(/reports/\w+)"', shown.get("/").text)
    assert "The oboe." in shown.get(address).text
    assert hidden.get(address).status_code == 404
    assert "/v1/retrievals" in hidden.get("/docs").text
    assert "The log has no memories of this owner" in hidden.get(asking.replace("ann", "bo")).text


def check_accessible(text: str) -> None:
    """One heading of the first level, landmarks, a language, and a label around each field."""
    assert (text.count("<h1>"), text.count("<main"), text.count("<nav aria-label"), text.count('lang="en"')) == (1,) * 4
    outside = re.sub(r"<label>.*?</label>", "", text, flags=re.DOTALL)
    assert not re.findall(r"<(?:select|input(?! type=\"hidden\"))", outside)
    assert text.count('<th scope="col">') == text.count("<th ")


def test_colours_can_be_read_in_light_and_in_dark() -> None:
    css = templates().get_template("style.css").render()
    for rule in re.findall(r":root \{([^}]*)\}", css):
        colours = {name: value for name, value in re.findall(r"--(\w+): (#\w{6})", rule)}
        for name in ("ink", "soft", "link", "good", "bad"):
            for ground in ("paper", "field"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def contrast(one: str, other: str) -> float:
    """The contrast of WCAG 2, 1 to 21; 4.5 is what text needs."""

    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_without_a_key_nothing_can_be_changed(settings: Settings) -> None:
    open_page = client(settings, agent="mem0")
    assert "Roll mem0 back" not in open_page.get("/").text
    assert open_page.get("/confirm?action=rollback").status_code == 404
    for address in ("/swap", "/rollback"):
        assert open_page.post(address, json={}).status_code == 404
    # Nor without an agent.
    assert "/confirm" not in client(settings, ("secret",)).get("/").text


def test_a_change_is_confirmed_by_a_form_of_this_page(settings: Settings) -> None:
    page = client(settings, ("secret",), agent="nowhere")
    name = version_of(settings)
    assert client(settings, ("secret",)).get("/", headers={"authorization": ""}).status_code == 401
    assert "Roll nowhere back" in page.get("/").text
    assert page.get("/confirm?action=swap&version=v0009-00000000").status_code == 404
    asked = page.get(f"/confirm?action=swap&version={name}")
    cookie = asked.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    check_accessible(asked.text)
    (token,) = re.findall(r'name="token" value="(\w+)"', asked.text)
    form = {"token": token, "version": name}

    def post(**headers: str) -> int:
        return page.post("/swap", data=form, headers=headers, follow_redirects=False).status_code

    assert post(**{"origin": "https://elsewhere.example"}) == 403
    assert post(**{"sec-fetch-site": "cross-site"}) == 403
    assert page.post("/swap", data={**form, "token": "0" * 64}, follow_redirects=False).status_code == 403
    assert TestClient(page.app, base_url="http://localhost", headers=KEY).post("/swap", data=form).status_code == 403
    assert page.app.state.server.page.operator.job is None
    assert post(**{"origin": "http://localhost"}) == 303
    page.app.state.server.page.operator.wait(30)
    said = html.unescape(page.get("/").text)
    assert f"Swap to {name}: failed. No plugin opens 'nowhere'. Run `hins doctor`." in said


@pytest.mark.slow
def test_the_button_rolls_a_real_mem0_back(settings: Settings, tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("mem0")
    from hins_adapter_mem0 import Memory as Mem0

    from hins_memory.loop.pipeline import Pipeline

    registry, first = Registry(settings), version_of(settings)
    second = registry.add(shutil.copytree(tiny_folder, tmp_path / "two"), {"base": "tiny", "mode": "full"})
    memory = Mem0(settings=settings, capture=False)
    memory.add("Ann plays the oboe.", user_id="ann", infer=False)
    Pipeline(settings, memory).swap(second.id, force=True)
    memory.close()
    page = client(settings, ("secret",), agent="mem0")
    (token,) = re.findall(r'name="token" value="(\w+)"', page.get("/confirm?action=rollback").text)
    assert page.post("/rollback", data={"token": token}, follow_redirects=False).status_code == 303
    page.app.state.server.page.operator.wait(60)
    assert f"Rollback: done. {first} serves now, {second.id} before." in page.get("/").text
    assert {one.state: one.version for one in registry.indexes()} == {"live": first, "previous": second.id}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.slow
def test_a_browser_draws_it_in_light_and_dark_and_narrow(settings: Settings, tmp_path: Path) -> None:
    from PIL import Image

    paper = {"light": (255, 255, 255), "dark": (15, 23, 42)}
    with served(create_app(settings)) as url:
        for scheme, number in (("light", 1), ("dark", 0)):
            shot = tmp_path / f"{scheme}.png"
            browse(tmp_path, url, f"--screenshot={shot}", "--window-size=500,900", f"preferredColorScheme={number}")
            image = Image.open(shot).convert("RGB")
            # The edges are bare, so that nothing is wider than the window, and the text is not.
            edge = {image.getpixel((x, y)) for x in (0, image.width - 1) for y in range(image.height)}
            assert edge == {paper[scheme]}
            assert len(image.getcolors(1 << 20) or ()) > 20
        dom = browse(tmp_path, url, "--dump-dom", "--window-size=500,900", "preferredColorScheme=1")
    assert "<h1>What serves, and how well</h1>" in dom
    assert version_of(settings) in dom


def browse(folder: Path, url: str, *options: str) -> str:
    """Load an address in Chromium without a window; return what it prints. The last option is one of Blink's."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *options[:-1], f"--blink-settings={options[-1]}", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
