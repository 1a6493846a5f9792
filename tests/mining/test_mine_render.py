"""The report as text."""

import json
from dataclasses import replace

from mine_logs import sailor

from hins_memory.mining import MineReport, MineSettings, mine, render
from hins_memory.types import Ratio


def test_the_report_shows_bars_intervals_reasons_and_samples(stock_encoder):
    logs = [sailor("ann"), replace(sailor("bea"), deleted=3), sailor("cem", 1)]
    report = mine(logs, stock_encoder, MineSettings(max_owner_share=1.0)).report
    text = render(report, width=80)
    assert f"{report.examples} examples from {report.queries} queries" in text
    for tier in ("easy", "medium", "hard"):
        line = next(one for one in text.splitlines() if one.startswith(f"  {tier}") and "to" in one)
        share = 100 * getattr(report.ratio, tier)
        assert f"{share:.1f} %" in line
        assert line.count("#") == round(30 * share / 100)
    assert "memories deleted from the agent" in text
    assert report.samples["easy"][0].query in text
    assert "user=bea" in text
    assert all(len(line) <= 110 for line in text.splitlines())
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_report_of_nothing_and_one_of_a_given_ratio():
    assert render(MineReport()).startswith("0 examples")
    report = MineReport(ratio=Ratio(0.5, 0.5, 0.0))
    text = render(report)
    assert "given" in text
    assert "(given)" in text
