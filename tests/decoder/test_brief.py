"""The comparison in brief. Claims:

- it has the page's five sentences, word for word, what the arms cost, the commits, seeds and resolution.
- every number in its tables is a figure of metrics.csv with its interval: of arms, controls and differences.
- all rows of a table are as long as its head, whatever stands in a cell; no figure is minus nothing.
- where there are several seeds or settings of the detail, a table shows A's lead in each, its mean over seeds if every
  seed has it, its change along the dial; a stage that was not measured leaves plain words and no column.
- it lies beside the page.
"""

import re
from pathlib import Path
from typing import Any

from comparison import judge, metrics, paired, seeded, swept

from decoder.compare.brief import brief, markdown
from decoder.compare.figures import figures
from decoder.compare.findings import fairness, verdicts
from decoder.compare.grid import Cell, Row, Table
from decoder.compare.labels import one, signed, three, two, whole
from decoder.compare.page import write_page


def of(found: dict[str, Any]) -> str:
    return brief(found, figures(found))


def tables_of(text: str) -> list[list[list[str]]]:
    """The rows of every table, as GitHub splits them."""
    rows = lambda block: [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
    return [[[c.strip() for c in row] for row in rows(part)] for part in text.split("\n\n") if part.startswith("|")]


def test_it_says_what_the_page_says() -> None:
    found = paired(metrics(measured={"pictures": "fedcba987654"}))
    text = of(found)
    for verdict in verdicts(judge(found)):
        assert f"- **{verdict.subject}: {verdict.mark}.** {verdict.sentence}" in text
    assert fairness(judge(found)) in text and "commit 0123456789ab and fedcba987654" in text
    assert "model seed 0, 8 frames of 32 × 32 pixels, 1 h 10 min" in text.replace("\u00a0", " ")


def test_its_numbers_are_figures() -> None:
    found = paired(metrics())
    overview, features = tables_of(of(found))
    place = overview[0].index("PSNR, dB")
    told = {row[0].split("\u2002")[0]: row[place] for row in overview[2:]}
    for arm, letter in {
        "jepa": "A",
        "pixels": "B",
        "pixels_plus": "B+",
        "copy": "copy",
        "target": "decode(target)",
    }.items():
        figure = figures(found)[f"pictures/tasks/forward/{arm}/psnr"]
        assert told[letter] == f"{figure.value:.1f} [{figure.low:.1f}, {figure.high:.1f}]"
    assert told["A − B"].startswith("+4.0 [") and told["A − B+"].startswith("+3.0 [")
    known = figures(found)
    at = features[0].index("motion")
    share = known["representation/labels/motion/masked_pixels/1"].value
    assert share is not None
    assert next(row for row in features if row[0].startswith("C"))[at].startswith(f"{100 * share:.1f}")


def test_seeds_show_what_became_of_the_lead() -> None:
    found = seeded(paired(metrics()), paired(metrics(pictures__tasks__forward__jepa__psnr__value=20.0)))
    *others, leads = tables_of(of(found))
    known, row = figures(found), next(row for row in leads if row[0] == "PSNR, dB: A − B")
    name = "pictures/tasks/forward/jepa-pixels/psnr"
    assert len(others) == 2 and leads[0][1:] == ["mean", "seed 0", "seed 1"]
    for text, at in zip(row[1:], (name, f"by_seed/0/{name}", f"by_seed/1/{name}"), strict=True):
        figure = known[at]
        assert text.replace("−", "-") == f"{figure.value:+.1f} [{figure.low:+.1f}, {figure.high:+.1f}]"
    assert {len(row) for row in leads} == {4} and not any("pixels" in row[0] for row in leads)


def test_a_lead_that_one_seed_lacks_has_no_mean() -> None:
    second = paired(metrics())
    del second["pictures"]["tasks"]["forward"]["jepa-pixels"]
    leads = tables_of(of(seeded(paired(metrics()), second)))[-1]
    mean, first, missing = next(row for row in leads if row[0] == "PSNR, dB: A − B")[1:]
    assert mean == missing == "–" and first.startswith("+4.0 [")
    assert "–" not in next(row for row in leads if row[0] == "PSNR, dB: A − B+")


def test_settings_show_how_the_lead_changes() -> None:
    loud = paired(metrics())
    loud["pictures"]["tasks"]["forward"]["jepa-pixels"]["psnr"] = {"value": 9.0, "ci95": [8.5, 9.5], "n": 64}
    found = swept((0.0, paired(metrics())), (1.0, loud))
    leads = tables_of(of(found))[-1]
    change = figures(found)["detail/change/pictures/tasks/forward/jepa-pixels/psnr"]
    assert leads[0][1:] == ["detail 0", "detail 1", "change"] and change.low is not None and change.high is not None
    row = next(row for row in leads if row[0] == "PSNR, dB: A − B")
    assert row[1].startswith("+4.0 [") and row[2] == "+9.0 [+8.5, +9.5]"
    assert row[3] == f"+5.0 [{signed(one)(change.low)}, {signed(one)(change.high)}]"


def test_what_was_not_measured_leaves_no_column() -> None:
    found = paired(metrics())
    found["distance"] = {"reason": "no weights"}
    text = of(found)
    assert "Fréchet distance, lower" not in text and "not compared with those of B by Fréchet distance" in text


def test_cells_cannot_break_a_table() -> None:
    (table,) = tables_of(markdown(Table("a | b", "", ["x|y"], [Row("1|2", [Cell("3|4", "[5|6]")], block="all|none")])))
    assert [len(row) for row in table] == [2, 2, 2, 2] and table[3] == [r"1\|2", r"3\|4 [5\|6]"]


def test_nothing_is_minus_nothing() -> None:
    assert [form(-1e-6) for form in (one, two, three, whole)] == ["0.0", "0.00", "0.000", "0"] and one(-0.06) == "−0.1"


def test_it_lies_beside_the_page(tmp_path: Path) -> None:
    found = paired(metrics())
    write_page(tmp_path, found)
    assert (tmp_path / "report.md").read_text() == of(found)
