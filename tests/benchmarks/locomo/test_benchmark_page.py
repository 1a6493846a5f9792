"""The page of encoders side by side: its tables and examples, and how a real browser takes it."""

import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from nasty_texts import check_page

from hins_memory.llm import Usage
from parts.datasets.locomo import Question
from parts.locomo.side_by_side import Asked, EncoderRun, score_run
from parts.locomo.side_by_side_page import write_report
from parts.locomo.side_by_side_report import report_runs
from parts.qa.readers import Reading

pytest.importorskip("nltk")
EVIL = "<script>document.title='hacked'</script><img src=http://example.org/x.png onerror=alert(1)>"


def _run(name, ranks, answers):
    """One encoder's run over questions whose only relevant memory has these ranks (0: not found)."""
    asked = []
    for number, rank in enumerate(ranks):
        ranking = [f"m{n}" for n in range(20)]
        if rank:
            ranking[rank - 1] = "gold"
        texts = tuple(f"[1 May 2023, 13:56] {EVIL} 船 🚲 {one}" for one in ranking)
        question = Question(f"What {number}? {EVIL}", "The cello; loudly", 1 + number % 5, ("D1:1",))
        asked.append(Asked("conv", number, question, tuple(ranking), texts, frozenset({"gold"}), True))
    readings = [Reading(text) if text else Reading("", f"late {EVIL}") for text in answers]
    scores, recalls = score_run(asked, readings, None)
    return EncoderRun(name, tuple(asked), tuple(readings), scores, recalls, {"gpt": Usage(requests=9, cost=1.5)})


@pytest.fixture
def runs():
    stock = _run("stock", [1, 3, 0, 4, 2, 2, 9], ["cello", "x", "oboe", "x", "x", "the cello", ""])
    hins = _run("hins", [1, 1, 2, 5, 1, 1, 1], ["x", "cello", "cello", "x", "not mentioned", "", "cello"])
    return [stock, hins]


def test_figures_differences_and_failures(runs):
    shown = []
    figures, rows = report_runs(
        runs, 0, {"gpt": Usage(requests=18, cost=3.0, full_cost=4.0)}, lambda *one: shown.append(one)
    )
    # six questions of categories 1 to 4; category 5 is apart
    assert figures["stock_recall10"] == pytest.approx(100 * 5 / 6)
    assert figures["hins_recall10"] == 100.0
    assert (figures["stock_abstained"], figures["hins_abstained"]) == (0.0, 100.0)
    assert (figures["stock_failed"], figures["hins_failed"]) == (1.0, 1.0)
    assert (figures["cost"], figures["full_cost"]) == (3.0, 4.0)
    # gold answers: "cello; loudly" of six, the part before the semicolon for category 3
    gains = runs[1].scores["official_f1"] - runs[0].scores["official_f1"]
    assert np.nanmean(gains) * 100 == pytest.approx(figures["hins_official_f1_gain"])
    difference = next(row for row in rows if row.get("score") == "official_f1")
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert (difference["against"], difference["questions"]) == ("stock", 6)
    micro = next(row for row in rows if row.get("slice") == "categories 1-4" and row["encoder"] == "hins")
    assert (micro["questions"], micro["failed"]) == (6, 1)
    assert {row.get("requests") for row in rows if "model" in row} == {9}
    assert any("interval" in title for title, *_ in shown)


def test_the_recall_curve_rises_to_the_share_that_is_found(runs):
    curve = np.nanmean(runs[0].recall, axis=0)
    assert (np.diff(curve) >= 0).all()
    assert curve[0] == pytest.approx(1 / 7)
    assert curve[-1] == pytest.approx(6 / 7)


def test_the_page_shows_examples_won_and_lost_escaped(runs, tmp_path):
    path = tmp_path / "page.html"
    figures, rows = report_runs(runs, 0, {}, lambda *one: None)
    write_report(path, runs, figures, rows, {"seed": 0, "data": EVIL})
    page = path.read_text(encoding="utf-8")
    check_page(page)
    won, lost = page.split("Won by hins against stock")[1].split("Lost by hins against stock")
    assert "What 1?" in won
    assert "What 0?" not in won
    assert "What 0?" in lost
    assert "✓ [1 May" in won
    assert "late &lt;script" in lost


def test_retrieval_alone_makes_a_page_too(runs, tmp_path):
    bare = []
    for run in runs:
        scores, recalls = score_run(run.asked, (), None)
        bare.append(EncoderRun(run.name, run.asked, (), scores, recalls, {}))
    figures, rows = report_runs(bare, 0, {}, lambda *one: None)
    write_report(tmp_path / "page.html", bare, figures, rows, {})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "nDCG@10 by category" in page
    assert "official F1 by" not in page
    assert "No language model was asked." in page


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def served(folder):
    """Serve a folder on loopback; yield the port and the (host, path) of every request."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.headers.get("host", "").split(":")[0], self.path))
            super().do_GET()

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_address[1], asked
    server.shutdown()
    server.server_close()


def look_at(folder, name):
    """Open a page in Chromium, with every host of the world on loopback.

    Return the document, what the console said, the page's requests, and the screenshot.
    """
    picture = folder / f"{name}.png"
    with served(folder) as (port, asked):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}"]
        options += [f"--host-resolver-rules=MAP * 127.0.0.1:{port}", "--enable-logging=stderr", "--v=0"]
        options += ["--dump-dom", f"--screenshot={picture}", "--window-size=1000,3000", "--virtual-time-budget=2000"]
        command = [str(CHROMIUM), *options, f"http://127.0.0.1:{port}/{name}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # The browser has errands of its own.
    own = ("google.com", "googleapis.com", "gvt1.com")
    return done.stdout, console, [one for one in asked if not one[0].endswith(own)], picture


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; install it to see the page in a browser")
def test_a_browser_shows_it_without_errors_or_requests(runs, tmp_path):
    figures, rows = report_runs(runs, 0, {}, lambda *one: None)
    write_report(tmp_path / "page.html", runs, figures, rows, {"data": EVIL})
    dom, console, asked, picture = look_at(tmp_path, "page.html")
    assert console == []
    assert asked == [("127.0.0.1", "/page.html")]
    assert "<title>LoCoMo: encoders side by side</title>" in dom
    # bars of three scores, and the curve with a line for each encoder
    assert dom.count("<svg") == 4
    assert len(re.findall("<polyline", dom)) == 2
    assert len(re.findall("<rect", dom)) == 2 * (5 + 4 + 4)
    assert picture.stat().st_size > 20_000


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; install it to see the page in a browser")
def test_what_looks_at_the_page_sees_errors_and_requests(tmp_path):
    bad = "<script>console.error('broken')</script><img src='http://example.org/x.png'>"
    (tmp_path / "bad.html").write_text(f"<!doctype html><title>bad</title>{bad}", encoding="utf-8")
    _, console, asked, _ = look_at(tmp_path, "bad.html")
    assert any("broken" in line for line in console)
    assert ("example.org", "/x.png") in asked
