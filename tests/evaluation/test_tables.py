"""The papers' rows beside ours."""

from __future__ import annotations

import io

from rich.console import Console

from regionvlp.evaluation.tables import COLUMNS, comparison_rows, comparison_table, paper_tables

OURS = {"R1": 12.34, "R5": 30.0, "R10": 40.0, "R50": 70.0, "MedR": 17.0, "MeanR": 50.0, "ties": 0}


def test_tables_are_well_formed() -> None:
    for table in paper_tables():
        for key in ("fine_tuned", "zero_shot"):
            for method, *values in table.get(key, ()):
                assert isinstance(method, str)
                row = dict(zip(table["columns"], values, strict=True))
                assert set(row) <= set(COLUMNS)
                recalls = [row[c] for c in ("R1", "R5", "R10") if row.get(c) is not None]
                assert recalls == sorted(recalls), (table["paper"], table["table"], method)
                assert all(0 < value <= 100 for value in recalls)


def test_rows_of_one_gallery_and_direction() -> None:
    rows = comparison_rows(OURS, "msrvtt", split="1ka", setting="fine-tuned", name="mine")
    demovlp = [row for row in rows if row["method"] == "DemoVLP"]
    assert [(row["R1"], row["MedR"], row["source"]) for row in demovlp] == [(36.0, 3.0, "DemoVLP, table 7b")]
    assert rows[-1] == {
        "method": "mine",
        "source": "this run",
        "setting": "fine-tuned",
        **{c: OURS[c] for c in COLUMNS},
    }
    assert {row["setting"] for row in rows} == {"fine-tuned"}
    # Both DemoVLP and MILES quote this one.
    assert len([row for row in rows if row["method"] == "ActBERT"]) == 1
    back = comparison_rows(OURS, "MSRVTT", split="1ka", direction="v2t", setting="zero-shot")
    assert [(r["method"], r["R1"]) for r in back] == [("SupportSet", 8.7), ("DemoVLP", 27.1), ("ours", 12.34)]
    full = comparison_rows(OURS, "MSRVTT", split="full")
    assert full[0]["method"] == "VSE"
    assert "DemoVLP" not in {row["method"] for row in full}
    assert len(comparison_rows(OURS, "toy")) == 1


def test_the_terminal_table_leaves_empty_columns_out() -> None:
    output = io.StringIO()
    table = comparison_table({"R1": 1.0, "MedR": 9.0}, "LSMDC", name="run [a]")
    Console(file=output, width=160).print(table)
    text = output.getvalue()
    assert "LSMDC, text-to-video" in text
    assert "MeanR" not in text
    assert "49.5" in text
    assert "run [a]" in text
