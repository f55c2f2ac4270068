"""Reading URL lists: clear errors for bad files, a reason for each bad row, and no row lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawls import read_manifest
from pipelines.download.readers.record import Record
from pipelines.download.reasons import Reason
from pipelines.download.rows import Row
from pipelines.download.rows import checked as checked_record
from pipelines.download.source import Shard, Source, read_shard
from pipelines.errors import BadInput
from pipelines.lake.identity import pair_uid
from tests.download.conftest import CrawlMaker

URL = "http://example.org/a.jpg"


def checked(url: bytes | None, caption: bytes | None) -> Row:
    return checked_record(Record("row 1", url, caption))


def shards(manifest: Path, rows_per_shard: int) -> list[Shard]:
    with TemporaryDirectory() as scratch:
        return list(Source(read_manifest(manifest), Path(scratch)).shards(rows_per_shard))


@pytest.mark.parametrize(
    ("url", "caption", "reason"),
    [
        (None, b"a", Reason.URL_EMPTY),
        (b"  ", b"a", Reason.URL_EMPTY),
        (b"http://exam ple.org/", b"a", Reason.URL_INVALID),
        (b"http://\xff.org/", b"a", Reason.URL_INVALID),
        (b"http://[::1/", b"a", Reason.URL_INVALID),
        (b"http:///a.jpg", b"a", Reason.URL_INVALID),
        (b"file:///etc/passwd", b"a", Reason.URL_SCHEME),
        (b"ftp://example.org/a.jpg", b"a", Reason.URL_SCHEME),
        (b"example.org/a.jpg", b"a", Reason.URL_SCHEME),
        (URL.encode(), None, Reason.CAPTION_EMPTY),
        (URL.encode(), b" \n ", Reason.CAPTION_EMPTY),
        (URL.encode(), b"caf\xe9", Reason.CAPTION_ENCODING),
        (URL.encode(), b"a\0b", Reason.CAPTION_CONTROL_CHARACTERS),
        (URL.encode(), b"a\x1b[31mb", Reason.CAPTION_CONTROL_CHARACTERS),
    ],
)
def test_a_row_that_cannot_be_used_has_a_reason(
    url: bytes | None, caption: bytes | None, reason: Reason
) -> None:
    failure = checked(url, caption).failure
    assert failure is not None
    assert failure.reason == reason


def test_line_breaks_and_tabs_in_captions_become_spaces() -> None:
    row = checked(URL.encode(), "a cat\r\non\ta \u2028mat\n".encode())
    assert (row.text, row.normalised, row.failure) == ("a cat on a  mat", True, None)
    assert row.uid == pair_uid(URL, "a cat on a  mat")


def test_captions_in_any_script_stay_as_they_are() -> None:
    for text in ("一只猫", "قطة\u200f على", "naïve 🐈\u200d⬛", "  spaced  "):
        row = checked(URL.encode(), text.encode())
        assert (row.text, row.normalised, row.failure) == (text, False, None)


def test_only_the_first_of_equal_rows_is_downloaded(maker: CrawlMaker) -> None:
    manifest = maker.crawl([URL, URL, URL + "?2", URL], ["a", "b", "a", "a"])
    (shard,) = shards(manifest, 10)
    assert [at for at, _ in shard.rows] == [0, 1, 2]
    assert [(at, failure.reason) for at, _, failure in shard.rejected] == [(3, Reason.DUPLICATE_ROW)]


def test_lists_are_read_one_after_the_other_and_duplicates_found_across_them(maker: CrawlMaker) -> None:
    for name, captions in (("one", ["a", "b"]), ("two", ["b", "c"])):
        table = pa.table({"link": [URL, URL], "text": pa.array(captions).dictionary_encode()})
        pq.write_table(table, maker.folder / f"{name}.parquet")
    manifest = maker.manifest(
        files=["one.parquet", "two.parquet"], columns={"url": "link", "caption": "text"}
    )
    first, second = shards(manifest, 3)
    assert [row.text for _, row in first.rows + second.rows] == ["a", "b", "c"]
    assert [(at, failure.reason) for at, _, failure in first.rejected] == [(2, Reason.DUPLICATE_ROW)]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.none(), st.sampled_from([URL, URL + "?1", "file:///x", "ftp://a/", "http://"]), st.text(max_size=8)),
            st.one_of(st.none(), st.sampled_from([b"a", b"b"]), st.binary(max_size=4)),
        ),
        min_size=1, max_size=40,
    ),
    rows_per_shard=st.integers(1, 12),
)  # fmt: skip
def test_every_row_is_downloaded_or_dropped_and_exactly_once(
    rows: list[tuple[str | None, bytes | None]], rows_per_shard: int
) -> None:
    with TemporaryDirectory() as folder:
        maker = CrawlMaker(Path(folder))
        manifest = maker.crawl([url for url, _ in rows], [caption for _, caption in rows])
        cut = shards(manifest, rows_per_shard)
        places: Counter[int] = Counter()
        for shard in cut:
            shard.write(Path(folder) / "shard.json")
            kept, rejected = read_shard(Path(folder) / "shard.json")
            places.update(shard.number * rows_per_shard + row[0] for row in kept)
            places.update(shard.number * rows_per_shard + row[0] for row in rejected)
            assert shard.size == rows_per_shard or shard is cut[-1]
    assert places == Counter(range(len(rows)))
    uids = [row.uid for shard in cut for _, row in shard.rows]
    assert len(set(uids)) == len(uids)
    good = {
        (row.url, row.text) for url, caption in rows if (row := checked(_bytes(url), caption)).failure is None
    }
    assert {(row.url, row.text) for shard in cut for _, row in shard.rows} == good


def sliced(maker: CrawlMaker, names: list[str], rows: int | None) -> tuple[set[str], Counter[str]]:
    """The captions that are taken in, and why the others are not."""
    said = {} if rows is None else {"rows": rows}
    found = shards(maker.manifest(files=[f"{name}.parquet" for name in names], **said), 7)
    reasons = Counter(failure.reason.value for shard in found for _, _, failure in shard.rejected)
    return {row.text for shard in found for _, row in shard.rows}, reasons


def test_a_slice_is_the_same_rows_whatever_their_order_and_holds_every_smaller_one(maker: CrawlMaker) -> None:
    for name, numbers in (("one", range(60)), ("two", range(55, 100)), ("turned", reversed(range(60)))):
        captions = [f"caption {number}" for number in numbers]
        urls = [f"{URL}?{caption[8:]}" for caption in captions]
        pq.write_table(pa.table({"url": [*urls, "file:///x"], "caption": [*captions, "a"]}), maker.folder / f"{name}.parquet")  # fmt: skip

    slices = {rows: sliced(maker, ["one", "two"], rows) for rows in (10, 30, 99, 100, 101, None)}
    for rows, (taken, reasons) in slices.items():
        assert len(taken) == min(rows or 100, 100)
        # What cannot be used, or came before, has its own reason.
        assert reasons["url_scheme"] == 2 and reasons["duplicate_row"] == 5
        assert reasons["beyond_slice"] == 100 - len(taken)
    assert slices[10][0] < slices[30][0] < slices[99][0]
    assert sliced(maker, ["two", "turned"], 30)[0] == slices[30][0]
    # Spread over the source, and not its beginning.
    places = [int(text[8:]) for text in slices[30][0]]
    assert sum(place >= 50 for place in places) > 5


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def test_a_missing_column_is_named_beside_those_that_exist(maker: CrawlMaker) -> None:
    manifest = maker.crawl([URL], columns={"url": "URL", "caption": "TEXT"})
    with pytest.raises(BadInput, match="no column 'URL'; it has 'url', 'caption'"):
        shards(manifest, 1)


def test_a_column_that_is_no_text_is_refused(maker: CrawlMaker) -> None:
    pq.write_table(pa.table({"url": [1], "caption": ["a"]}), maker.folder / "urls.parquet")
    with pytest.raises(BadInput, match="'url' is of type int64"):
        shards(maker.manifest(), 1)


def test_an_empty_list_is_refused(maker: CrawlMaker) -> None:
    with pytest.raises(BadInput, match="empty"):
        shards(maker.crawl([]), 1)


def test_a_missing_list_is_named(maker: CrawlMaker) -> None:
    with pytest.raises(BadInput, match=r"gone\.parquet does not exist"):
        read_manifest(maker.manifest(files=["gone.parquet"]))


@pytest.mark.parametrize("where", ["tail", "middle", "all"])
def test_a_damaged_list_is_bad_input_that_names_the_file(maker: CrawlMaker, where: str) -> None:
    manifest = maker.crawl([f"{URL}?{at}" for at in range(500)])
    path = maker.folder / "urls.parquet"
    whole = path.read_bytes()
    damaged = {
        "tail": whole[:-200],
        "middle": whole[:4] + b"\xff" * 400 + whole[404:],
        "all": b"url,caption\n",
    }
    path.write_bytes(damaged[where])
    with pytest.raises(BadInput, match="not a whole parquet file") as caught:
        shards(manifest, 100)
    assert caught.value.where == str(path)
