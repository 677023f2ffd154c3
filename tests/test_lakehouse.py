"""Delta tables by value, on a table of four columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avrec_spark.errors import DataError, MissingTableError
from avrec_spark.lakehouse import Lakehouse
from avrec_spark.tables import ID, Table

TABLE = Table(
    "gold", "things", {"item_id": ID, "kind": "string", "rank": "int", "score": "double"}, ("item_id", "kind"), "make"
)


@pytest.fixture
def lakehouse(spark, tmp_path):
    return Lakehouse(spark, str(tmp_path))


def frame(lakehouse, *rows, schema="item_id bigint, kind string, rank int, score double"):
    return lakehouse.spark.createDataFrame(rows, schema)


def rows(lakehouse):
    return sorted(tuple(row) for row in lakehouse.read(TABLE).collect())


def test_a_merge_updates_known_keys_inserts_new_ones_and_changes_nothing_twice(lakehouse):
    lakehouse.merge(TABLE, frame(lakehouse, (1, "a", 1, 0.1), (2, "a", 2, 0.2)))
    for _ in range(2):
        lakehouse.merge(TABLE, frame(lakehouse, (2, "a", 2, 0.5), (2, "b", 3, 0.3)))
        assert rows(lakehouse) == [(1, "a", 1, 0.1), (2, "a", 2, 0.5), (2, "b", 3, 0.3)]
    lakehouse.merge(TABLE, frame(lakehouse, (1, "a", 9, 0.9), (3, "a", 9, 0.9)), insert_only=True)
    assert rows(lakehouse) == [(1, "a", 1, 0.1), (2, "a", 2, 0.5), (2, "b", 3, 0.3), (3, "a", 9, 0.9)]


def test_a_merge_can_leave_rows_alone_that_do_not_differ(lakehouse):
    lakehouse.merge(TABLE, frame(lakehouse, (1, "a", 1, 0.1), (2, "a", 2, 0.2)))
    lakehouse.merge(TABLE, frame(lakehouse, (1, "a", 5, 0.1), (2, "a", 5, 0.9)), if_differs="score")
    assert rows(lakehouse) == [(1, "a", 1, 0.1), (2, "a", 5, 0.9)]


def test_replacing_groups_leaves_the_other_groups_alone(lakehouse):
    lakehouse.append(TABLE, frame(lakehouse, (1, "a", 1, 0.1), (1, "b", 2, 0.2), (2, "a", 3, 0.3)))
    touched = frame(lakehouse, (1,), schema="item_id bigint")
    lakehouse.replace_groups(TABLE, frame(lakehouse, (1, "c", 7, 0.7)), touched)
    assert rows(lakehouse) == [(1, "c", 7, 0.7), (2, "a", 3, 0.3)]


def test_a_replaced_table_remains_readable_by_version(lakehouse):
    lakehouse.replace(TABLE, frame(lakehouse, (1, "a", 1, 0.1)))
    lakehouse.replace(TABLE, frame(lakehouse, (2, "a", 1, 0.1)))
    assert rows(lakehouse) == [(2, "a", 1, 0.1)]
    assert lakehouse.version(TABLE) == 1
    assert lakehouse.read(TABLE, version=0).first()["item_id"] == 1


def test_columns_are_cast_and_ordered_and_absent_ones_are_null(lakehouse):
    lakehouse.append(TABLE, frame(lakehouse, ("7", 1), schema="score string, item_id int"))
    assert lakehouse.read(TABLE).dtypes == [
        ("item_id", "bigint"),
        ("kind", "string"),
        ("rank", "int"),
        ("score", "double"),
    ]
    assert rows(lakehouse) == [(1, None, None, 7.0)]


def test_ids_of_another_kind_are_refused_with_both_kinds(lakehouse):
    lakehouse.append(TABLE, frame(lakehouse, (1, "a", 1, 0.1)))
    with pytest.raises(DataError, match="holds item_id as bigint, the new rows as string") as error:
        lakehouse.append(TABLE, frame(lakehouse, ("x",), schema="item_id string"))
    assert "Keep one type of id a lakehouse" in str(error.value)


def test_a_table_that_nobody_wrote_names_its_writer_and_can_be_read_as_empty(lakehouse):
    with pytest.raises(MissingTableError, match="avrec run make"):
        lakehouse.read(TABLE)
    assert lakehouse.version(TABLE) is None
    assert lakehouse.read_or_empty(TABLE).columns == list(TABLE.columns)
    assert lakehouse.read_or_empty(TABLE).count() == 0


def test_any_delta_reader_can_read_a_table_that_rows_were_removed_from(lakehouse):
    lakehouse.append(TABLE, frame(lakehouse, (1, "a", 1, 0.1), (2, "a", 2, 0.2)))
    lakehouse.replace_groups(TABLE, frame(lakehouse, (2, "b", 2, 0.2)), frame(lakehouse, (2,), schema="item_id bigint"))
    log = Path(lakehouse.table_path(TABLE), "_delta_log")
    actions = [json.loads(line) for file in log.glob("*.json") for line in file.read_text().splitlines()]
    assert {action["protocol"]["minReaderVersion"] for action in actions if "protocol" in action} == {1}
    assert not [action for action in actions if "deletionVector" in action.get("add", {})]
