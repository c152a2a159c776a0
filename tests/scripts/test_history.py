"""Reading logs: what is there comes out as a request would bring it, what is wrong is counted where it stands."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features import Encoder
from models.spec import FeatureSpec
from scripts.history import LogError, Logged, Skipped, read_csv, read_jsonl

SPEC = FeatureSpec.from_toml("""
[[fields]]
name = "id"
side = "user"
kind = "categorical"
source = "id"
buckets = 64

[[fields]]
name = "country"
side = "user"
kind = "categorical"
buckets = 16

[[fields]]
name = "hour"
side = "context"
kind = "numeric"

[[fields]]
name = "tags"
side = "item"
kind = "multi_hot"
buckets = 16
max_values = 3

[[fields]]
name = "country"
side = "item"
kind = "categorical"
buckets = 16
""")
HEADER = "time,user_id,item_id,click,user.country,hour,tags,item.country"


def csv_of(folder: Path, *lines: str, header: str = HEADER) -> tuple[list[Logged], Skipped]:
    path = folder / "log.csv"
    path.write_bytes("\n".join([header, *lines]).encode("utf-8", "surrogateescape"))
    skipped = Skipped()
    return list(read_csv(path, SPEC, skipped)), skipped


def jsonl_of(folder: Path, *lines: str) -> tuple[list[Logged], Skipped]:
    path = folder / "log.jsonl"
    path.write_text("\n".join(lines))
    skipped = Skipped()
    return list(read_jsonl(path, SPEC, skipped)), skipped


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    from_csv, _ = csv_of(tmp_path, "1650812741436,u1,i1,1,cz,13.5,a;b,de")
    from_jsonl, _ = jsonl_of(
        tmp_path,
        '{"time": "2022-04-24T17:05:41.436+02:00", "user_id": "u1", "item_id": "i1", "click": true,'
        ' "user": {"country": "cz"}, "context": {"hour": 13.5}, "item": {"tags": ["a", "b"], "country": "de"}}',
    )
    assert [one._replace(where="") for one in from_csv] == [one._replace(where="") for one in from_jsonl]
    assert from_csv[0].time_ms == 1650812741436
    assert from_csv[0].item == {"tags": ["a", "b"], "country": "de"}
    assert (from_csv[0].where, from_jsonl[0].where) == ("log.csv:2", "log.jsonl:1")


def test_what_is_read_is_what_the_encoder_takes(tmp_path: Path) -> None:
    rows, _ = csv_of(tmp_path, "1,u1,i1,0,cz,13.5,a;b,de", "2,u1,i1,0,,,,")
    encoder = Encoder(SPEC)
    for row in rows:
        encoder.context(user_id=row.user_id, user=row.user, context=row.context)
        encoder.items([row.item_id], [row.item])
    assert (rows[1].user, rows[1].context, rows[1].item) == ({}, {}, {}), "an empty cell is a missing value"


def test_ids_are_text_and_numbers_lose_no_zero(tmp_path: Path) -> None:
    rows, _ = csv_of(tmp_path, "1,007,0x1,0,,,,")
    assert (rows[0].user_id, rows[0].item_id) == ("007", "0x1")
    rows, _ = jsonl_of(tmp_path, '{"time": 1, "user_id": 7, "item_id": "007", "click": 0}')
    assert (rows[0].user_id, rows[0].item_id) == ("7", "007")


def test_a_logged_prediction_is_kept(tmp_path: Path) -> None:
    rows, _ = csv_of(tmp_path, "1,u,i,0,0.25,,,,", header=HEADER.replace("click", "click,p_click"))
    assert rows[0].p_click == 0.25


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("soon,u,i,0,,,,", "bad_time"),
        ("2022-04-24T17:05:41,u,i,0,,,,", "bad_time"),  # of which zone?
        ("0,u,i,0,,,,", "bad_time"),
        (",u,i,0,,,,", "bad_line"),
        ("1,,i,0,,,,", "bad_line"),
        ("1,u,i,2,,,,", "bad_click"),
        ("1,u,i,maybe,,,,", "bad_click"),
        ("1,u,i,0,,noon,,", "bad_line"),
        ("1,u,i,0", "bad_line"),
        ('1,u,"i,0,,,,', "bad_line"),  # the quote never closes
        ("1,\udcff,i,0,,,,", "bad_line"),  # not UTF-8
        (f"1,{'u' * 300},i,0,,,,", "bad_user_id"),
    ],
)
def test_a_bad_line_is_counted_and_the_next_one_read(tmp_path: Path, line: str, reason: str) -> None:
    rows, skipped = csv_of(tmp_path, "5,u,i,1,,,,", line, "", line, "6,u,i,1,,,,")
    assert [row.time_ms for row in rows] == [5, 6]
    assert skipped.counts == {reason: 2}
    assert skipped.first[reason].startswith("log.csv:3: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"time": 1, "user_id": "u"', "bad_line"),
        ('{"time": 1, "user_id": "u", "item_id": "i", "click": "1"}', "bad_click"),
        ('{"time": 1, "user_id": "u", "item_id": "i", "click": 1, "clicks": 1}', "bad_line"),
        ('{"time": 1.5, "user_id": "u", "item_id": "i", "click": 1}', "bad_time"),
        ('{"time": 1, "user_id": "u", "item_id": "i", "click": 1, "p_click": 1.5}', "bad_p_click"),
        ('{"time": 1, "user_id": "u", "item_id": "i", "click": 1, "item": []}', "bad_item"),
        ("[]", "bad_line"),
    ],
)
def test_a_bad_object_is_counted_and_the_next_one_read(tmp_path: Path, line: str, reason: str) -> None:
    good = '{"time": 5, "user_id": "u", "item_id": "i", "click": 1}'
    rows, skipped = jsonl_of(tmp_path, line, good)
    assert [row.time_ms for row in rows] == [5]
    assert skipped.counts == {reason: 1}


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (f"{HEADER},city", "not in the feature spec: city"),
        (HEADER.replace("hour,", ""), "no column hour"),
        (HEADER.replace("user.country", "country"), "not in the feature spec: country"),  # of which side?
        (HEADER.replace("time,", ""), "no column time"),
        (f"{HEADER},hour", "names a column twice"),
        ("\udcff", "log.csv: "),  # not UTF-8
    ],
)
def test_a_header_that_does_not_fit_is_an_error_before_any_row(tmp_path: Path, header: str, text: str) -> None:
    with pytest.raises(LogError, match=text):
        csv_of(tmp_path, "1,u,i,0,,,,", header=header)


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"log\.csv: no column click, "):
        csv_of(tmp_path, header="")


def test_a_first_object_that_does_not_fit_is_an_error_before_any_row(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"log\.jsonl: not in the feature spec: context\.city, user\.hour"):
        jsonl_of(
            tmp_path,
            '{"time": 1, "user_id": "u", "item_id": "i", "click": 1, "context": {"city": 1}, "user": {"hour": 1}}',
        )


def test_gz_is_unpacked_and_a_cut_off_one_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join([HEADER, *["1,u,i,0,,,,"] * 1000]).encode())
    path = tmp_path / "log.csv.gz"
    path.write_bytes(whole)
    assert len(list(read_csv(path, SPEC, Skipped()))) == 1000
    path.write_bytes(whole[:-9])
    with pytest.raises(LogError, match=r"log\.csv\.gz"):
        list(read_csv(path, SPEC, Skipped()))


@given(st.lists(st.text(max_size=40), max_size=5))
def test_no_text_breaks_the_readers(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for read, name, first in ((read_csv, "log.csv", HEADER), (read_jsonl, "log.jsonl", "{}")):
        path = folder / name
        path.write_bytes("\n".join([first, *lines]).encode("utf-8", "surrogatepass"))
        skipped = Skipped()
        rows = list(read(path, SPEC, skipped))
        assert len(rows) + sum(skipped.counts.values()) <= 1 + path.read_bytes().count(b"\n") + 1
