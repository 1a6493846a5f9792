"""The page: what it shows and hides, who may change what serves, and how a real browser draws it."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
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


@pytest.mark.slow
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
    """The contrast of WCAG 2, 1 to 21; 4.5 is what text needs. Colours are as in styles: #0f172a, rgb(15, 23, 42)."""

    def light(colour: str) -> float:
        found = re.findall(r"\d+", colour) if "(" in colour else [int(two, 16) for two in re.findall("..", colour[1:])]
        parts = [int(part) / 255 for part in found[:3]]
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


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A real Chromium without a window, driven through chromedriver."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("there is no Chromium with a chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=programs[1]))
    yield driver
    driver.quit()


# Every element with a text of its own, with its colour and the ground that it stands on.
_COLOURS = """
const ground = one => { for (; one; one = one.parentElement) {
  const found = getComputedStyle(one).backgroundColor; if (found !== 'rgba(0, 0, 0, 0)') return found; }
  return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('body *')].filter(one =>
    one.checkVisibility() && [...one.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()))
  .map(one => [one.tagName, one instanceof SVGElement ? getComputedStyle(one).fill : getComputedStyle(one).color,
               ground(one)]);
"""


@pytest.mark.slow
def test_a_browser_shows_it_in_light_dark_and_narrow_and_by_keyboard(settings: Settings, browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.expected_conditions import url_contains
    from selenium.webdriver.support.ui import WebDriverWait

    name = version_of(settings)
    with served(create_app(settings, ServeSettings(keys=("secret",), page=PageSettings(agent="nowhere")))) as url:
        url = url.replace("http://", "http://operator:secret@")
        compared = f"/compare?query=oboe&owner=ann&left={name}&right={name}"
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            for width in (1200, 360):
                size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                for address in ("/", f"/versions/{name}", "/docs", compared):
                    browser.get(url + address)
                    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, address
                    found = browser.execute_script(_COLOURS)
                    assert len(found) > 20
                    for tag, ink, ground in found:
                        assert contrast(ink, ground) >= 4.5, (address, scheme, tag, ink, ground)
        # By keyboard alone: the first stop skips to the content; a rollback is asked for and confirmed.
        browser.get(url + "/")
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
        assert browser.switch_to.active_element.text == "Skip to the content"
        # The next page must be there before the next key: an element of the page before is stale.
        for button, next_page in (("Roll nowhere back…", "/confirm"), ("Roll back", "/#change")):
            for _ in range(60):
                ActionChains(browser).send_keys(Keys.TAB).perform()
                if browser.switch_to.active_element.text == button:
                    break
            browser.switch_to.active_element.send_keys(Keys.ENTER)
            WebDriverWait(browser, 60).until(url_contains(next_page))
            WebDriverWait(browser, 60).until(lambda one: one.execute_script("return document.readyState") == "complete")
        said = browser.find_element(By.XPATH, "//section[@aria-labelledby='change']//p[@role='status']").text
        assert said.startswith("Rollback: ")
        # Nothing of the page was refused by its own policy.
        assert browser.get_log("browser") == []
        browser.get(url + "/metrics")
        assert 'hins_requests_total{route="/"' in browser.find_element(By.TAG_NAME, "body").text
