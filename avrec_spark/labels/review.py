"""The review list: what a person's answer would tell most about, as CSV and as a page; and the answers coming back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import entr

from avrec_spark import columns as c
from avrec_spark.errors import DataError, MissingColumnsError
from avrec_spark.report.data import Clip
from avrec_spark.report.quality import diagram, pairs, tables
from avrec_spark.report.template import environment

COLUMNS = (c.ITEM_ID, c.URI, c.LABEL, c.CONFIDENCE, c.DECISION)
_DECISIONS = {"yes": True, "no": False}
# Reasons why a row is refused, and what they mean.
_REASONS = {
    "missing_label": "The row names no label.",
    "unknown_item": "The catalogue has no item of this id.",
    "unknown_decision": "A decision is yes or no; without one the row is not yet reviewed.",
}


def entropy(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """H(p) = -p log2 p - (1 - p) log2 (1 - p) bits, which an answer is expected to tell.

    Of two outcomes the smallest margin and the least confidence (Settles 2009, section 3.1) choose the same pairs.

    >>> entropy(np.array([0.5, 0.25, 1.0])).round(3).tolist()
    [1.0, 0.811, 0.0]
    """
    return np.asarray((entr(confidence) + entr(1 - confidence)) / np.log(2))


def most_informative(
    confidence: NDArray[np.float64], unanswered: NDArray[np.bool_], items: int, labels: int = 3
) -> list[tuple[int, list[int]]]:
    """(item, its labels): the items with the most bits in all their unanswered labels, and the least certain of these.

    float64[n, L] and bool[n, L]; items and labels by position, most bits first, of equals the first.

    >>> confidence = np.array([[0.9, 0.5], [0.1, 0.0], [0.5, 0.5]])
    >>> most_informative(confidence, np.array([[True, True], [True, True], [False, False]]), items=1)
    [(0, [1, 0])]
    """
    bits = np.where(unanswered, entropy(confidence), 0.0)
    order = np.argsort(-bits.sum(axis=1), kind="stable")[:items]
    uncertain = [(int(item), np.argsort(-bits[item], kind="stable")[:labels]) for item in order]
    found = [(item, [int(label) for label in chosen if bits[item, label] > 0]) for item, chosen in uncertain]
    return [(item, chosen) for item, chosen in found if chosen]


# -- answers -----------------------------------------------------------------------------------------------------------


def read_decisions(path: str, items: Collection[str]) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """(decisions, refused rows, number of rows) of a filled-in list.

    Decisions have item_id as text, label and decision (bool); of two on one item and label the later row counts. Rows
    without a decision are passed over. Refused are rows of unknown items, without a label, or with another word than
    yes or no: key, reason, detail, original. Raises `MissingColumnsError`, and `DataError` for what is no CSV.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeError) as error:
        raise DataError(f"{path} is not a readable CSV file: {error}.", "Save the list as CSV, UTF-8.") from None
    needed = (c.ITEM_ID, c.LABEL, c.DECISION)
    if missing := [name for name in needed if name not in rows]:
        raise MissingColumnsError(f"The corrections {path}", missing, rows.columns, "Fill in a review.csv as it is.")
    # As the catalogue tidies its tags.
    said = pd.DataFrame(
        {
            c.ITEM_ID: rows[c.ITEM_ID].str.strip(),
            c.LABEL: rows[c.LABEL].str.strip().str.lower(),
            c.DECISION: rows[c.DECISION].str.strip().str.lower(),
        }
    )
    answered = said[c.DECISION] != ""
    reason = np.select(
        [said[c.LABEL] == "", ~said[c.ITEM_ID].isin(items), ~said[c.DECISION].isin(_DECISIONS)], list(_REASONS), ""
    )
    wrong = answered & (reason != "")
    refused = pd.DataFrame(
        {
            c.KEY: [f"row#{number + 1}" for number in rows.index[wrong]],
            c.REASON: reason[wrong],
            c.DETAIL: [_REASONS[one] for one in reason[wrong]],
            c.ORIGINAL: [row.to_json(force_ascii=False) for _, row in rows[wrong].iterrows()],
        }
    )
    good = said[answered & ~wrong].drop_duplicates([c.ITEM_ID, c.LABEL], keep="last")
    return good.assign(**{c.DECISION: good[c.DECISION].map(_DECISIONS).astype(bool)}), refused, len(rows)


# -- the list ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """An item to look at, and the labels to decide with the confidence that it has each."""

    clip: Clip
    uri: str
    labels: Sequence[tuple[str, float]]


def to_csv(questions: Sequence[Question]) -> str:
    """One row an item and label; `decision` is empty, to be filled with yes or no.

    >>> print(to_csv([Question(Clip("a", "A"), "a.mp4", [("cat", 0.5)])]).strip())
    item_id,uri,label,confidence,decision
    a,a.mp4,cat,0.5,
    """
    rows = [
        (question.clip.item_id, question.uri, label, round(confidence, 4), "")
        for question in questions
        for label, confidence in question.labels
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False)


def render(
    run_id: str,
    questions: Sequence[Question],
    quality: pd.DataFrame,
    chosen: str,
    reliability: Mapping[str, pd.DataFrame],
    left_out: Mapping[str, str],
) -> str:
    """The page: questions with thumbnails, answers saved as CSV; how good the classifiers are; the reliability diagram.

    `quality` has model, split, metric, mean; `reliability` a table of `calibration.reliability` a caption.
    """
    return (
        environment()
        .get_template("review.html")
        .render(
            run_id=run_id,
            questions=questions,
            columns=COLUMNS,
            tables=tables(quality),
            chosen=chosen,
            diagram=diagram(reliability),
            pairs=pairs(reliability),
            left_out=left_out,
        )
    )
