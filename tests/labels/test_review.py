from __future__ import annotations

import io
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.labels import review
from avrec_spark.labels.review import Question
from avrec_spark.report.data import Clip

EVIL = '<script>alert("x")</script>'


def questions() -> list[Question]:
    return [
        Question(Clip("007", EVIL, b"\xff\xd8\xff"), "a,b.mp4", [("cat, small", 0.5), ("dog", 0.25)]),
        Question(Clip("8", "影片"), "", [("dog", 0.6)]),
    ]


def page(found: list[Question]) -> str:
    quality = pd.DataFrame(
        [("mlp", "test", "map", 0.75), ("logistic", "test", "map", float("nan"))],
        columns=["model", "split", "metric", "mean"],
    )
    table = pd.DataFrame({"confidence": [0.2, 0.8], "share": [0.25, 0.75], "pairs": [8, 4]})
    return review.render("r1", found, quality, "mlp", {"calibrated": table}, {"rare": "has 1 item"})


def test_items_are_asked_for_whose_answers_tell_most_and_never_what_is_answered():
    confidence = np.array([[0.5, 1.0, 0.0], [0.6, 0.6, 0.6], [0.5, 0.5, 0.5], [0.0, 1.0, 1.0]])
    unanswered = np.ones((4, 3), np.bool_)
    unanswered[2] = [True, False, False]
    chosen = review.most_informative(confidence, unanswered, items=4, labels=2)
    assert chosen == [(1, [0, 1]), (0, [0]), (2, [0])]
    assert review.most_informative(confidence, unanswered, items=1) == [(1, [0, 1, 2])]


def test_answers_come_back_from_the_list_that_was_written(tmp_path):
    rows = pd.read_csv(io.StringIO(review.to_csv(questions())), dtype=str, keep_default_na=False)
    assert rows["item_id"].tolist() == ["007", "007", "8"]
    rows["decision"] = ["yes", " No ", ""]
    # As a spreadsheet saves it.
    rows.to_csv(tmp_path / "filled.csv", index=False, encoding="utf-8-sig")
    decided, refused, count = review.read_decisions(str(tmp_path / "filled.csv"), {"007", "8"})
    assert decided.to_numpy().tolist() == [["007", "cat, small", True], ["007", "dog", False]]
    assert (len(refused), count) == (0, 3)


def test_rows_that_make_no_sense_are_refused_with_their_reasons_and_the_later_answer_counts(tmp_path):
    path = tmp_path / "filled.csv"
    path.write_text(
        "decision,label,item_id\nyes,Cat ,1\nmaybe,cat,1\nyes,,1\nno,cat,9\n,cat,9\nno,cat,1\n", encoding="utf-8"
    )
    decided, refused, count = review.read_decisions(str(path), {"1"})
    assert decided.to_numpy().tolist() == [["1", "cat", False]]
    assert refused[["key", "reason"]].to_numpy().tolist() == [
        ["row#2", "unknown_decision"],
        ["row#3", "missing_label"],
        ["row#4", "unknown_item"],
    ]
    assert refused["original"][0] == '{"decision":"maybe","label":"cat","item_id":"1"}'
    assert count == 6


def test_a_list_without_its_columns_or_that_is_no_csv_is_a_named_error(tmp_path):
    path = tmp_path / "filled.csv"
    path.write_text("item_id,label,decison\n1,cat,yes\n")
    with pytest.raises(MissingColumnsError, match=r"has no column decision; .*decison looks like decision"):
        review.read_decisions(str(path), {"1"})
    path.write_bytes(b"\xff\xfe\x00\x00")
    with pytest.raises(DataError, match="is not a readable CSV file"):
        review.read_decisions(str(path), {"1"})


def test_the_page_asks_every_question_and_escapes_what_the_data_says():
    html = page(questions())
    assert EVIL not in html
    asked = [unescape(row) for row in re.findall(r'data-row="([^"]*)"', html)]
    assert asked == [
        '["007", "a,b.mp4", "cat, small", 0.5]',
        '["007", "a,b.mp4", "dog", 0.25]',
        '["8", "", "dog", 0.6]',
    ]
    assert html.count("data:image/jpeg;base64,") == 1
    assert 'src="http' not in html and 'href="http' not in html
    assert "0.7500" in html and "has 1 item" in html


def test_the_reliability_diagram_has_a_dot_a_bin_and_the_diagonal():
    diagram = re.search(r"<figure.*?</figure>", page([]), re.DOTALL)
    assert diagram is not None
    assert diagram.group().count("<circle") == 2
    assert "stroke-dasharray" in diagram.group()
    assert "calibrated 0.20 0.25, 0.80 0.75" in diagram.group()


def test_a_page_without_questions_says_so():
    assert "There is no uncertain label to decide." in page([])
