"""Captions as a field of the batch, whichever way they are kept beside their pictures."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestar.config import Note, Problem
from lodestar.data import Batch, Shuffled, Source, Transforms, open_source, part, sequential
from lodestar.data.selection import expanded
from lodestar.training.inputs import open_data
from lodestar.training.run import DataConfig, Run

from .pictures import noise, png, write_table

EMOJI = Path(__file__).parents[3] / "shared/data/emoji-styles.parquet"
TEXTS = ("a dog", "红苹果, twemoji", "two\u202fcats", "a dog")


def written(path: Path, files: Mapping[str, bytes]) -> str:
    """A folder, or by the ending of the path an archive, of files."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return str(path)


def pictures(texts: Sequence[Any] = TEXTS) -> dict[str, bytes]:
    return {f"{k:04d}.png": png(noise(k)) for k in range(len(texts))}


def beside(texts: Sequence[Any], ending: str, form: Callable[[Any], bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, text in zip(pictures(texts), texts, strict=True):
        found |= {name: pictures(texts)[name], name.replace(".png", ending): form(text)}
    return found


def as_txt(texts: Sequence[str]) -> dict[str, bytes]:
    return beside(texts, ".txt", str.encode)


def as_json(texts: Sequence[str]) -> dict[str, bytes]:
    return beside(texts, ".json", lambda text: json.dumps({"caption": text, "width": 4}).encode())


def as_jsonl(texts: Sequence[str], name: str = "metadata.jsonl", column: str = "text") -> dict[str, bytes]:
    lines = [json.dumps({"file_name": file, column: text}) for file, text in zip(pictures(texts), texts, strict=True)]
    return {**pictures(texts), name: "\n".join(lines).encode()}


def as_csv(texts: Sequence[str], name: str = "metadata.csv", file: str = "file_name", column: str = "text") -> dict[str, bytes]:
    table = io.StringIO()
    csv.writer(table).writerows([(file, column), *zip(pictures(texts), texts, strict=True)])
    return {**pictures(texts), name: b"\xef\xbb\xbf" + table.getvalue().encode()}


def as_table(here: Path, texts: Sequence[Any], column: str = "caption", **more: Any) -> str:
    spec = write_table(here / "t.parquet", list(pictures(texts).values()), group=2)
    table = pq.read_table(spec)
    for name, cells in {column: texts, **more}.items():
        table = table.append_column(name, cells if isinstance(cells, pa.Array) else pa.array(cells))
    pq.write_table(table, spec, row_group_size=2)
    return spec


def as_dataset(_: Path, texts: Sequence[str]) -> Any:
    datasets = pytest.importorskip("datasets")
    cells = {"image": [{"bytes": data, "path": None} for data in pictures(texts).values()], "text": list(texts)}
    return datasets.Dataset.from_dict(cells).cast_column("image", datasets.Image())


def as_shards(here: Path, texts: Sequence[str]) -> str:
    files = list(as_txt(texts).items())
    written(here / "s-00.tar", dict(files[:4]))
    written(here / "s-01.tar", dict(files[4:]))
    return str(here / "s-{00..01}.tar")


WAYS: dict[str, Callable[[Path, Sequence[str]], Any]] = {
    "txt": lambda here, texts: written(here / "f", as_txt(texts)),
    "json": lambda here, texts: written(here / "f", as_json(texts)),
    "jsonl": lambda here, texts: written(here / "f", as_jsonl(texts)),
    "csv": lambda here, texts: written(here / "f", as_csv(texts)),
    "captions.csv": lambda here, texts: written(here / "f", as_csv(texts, "captions.csv", "image", "caption")),
    "captions.jsonl": lambda here, texts: written(here / "f", as_jsonl(texts, "captions.jsonl", "caption")),
    "zip": lambda here, texts: written(here / "a.zip", as_csv(texts)),
    "webdataset": lambda here, texts: written(here / "a.tar", as_txt(texts)),
    "webdataset json": lambda here, texts: written(here / "a.tar", as_json(texts)),
    "shards": as_shards,
    "shards by stars": lambda here, texts: as_shards(here, texts).replace("{00..01}", "*"),
    "parquet": as_table,
    "parquet text": lambda here, texts: as_table(here, texts, "text"),
    "datasets": as_dataset,
    "dicts": lambda _, texts: [{"image": noise(k), "text": text} for k, text in enumerate(texts)],
    "pairs": lambda _, texts: [(noise(k), text) for k, text in enumerate(texts)],
}


def captions(source: Source) -> list[Any]:
    return [text for batch in sequential(source, 3) for text in batch.fields["caption"]]


@pytest.mark.parametrize("way", WAYS)
def test_captions_are_read_alike(tmp_path: Path, way: str) -> None:
    data = WAYS[way](tmp_path, TEXTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        source = open_source(data, captions=True)
    assert source.captioned and captions(source) == list(TEXTS) and source.names is None
    numbers = np.concatenate([batch.image.numpy() for batch in sequential(source, 3)])[:, 0, 0, 0]
    assert numbers.tolist() == [0, 1, 2, 3], "each with its picture"
    batch = next(Shuffled(source, 8).batches(0))
    assert batch.fields["caption"] == tuple(TEXTS[number] for number in batch.image[:, 0, 0, 0])


@pytest.mark.parametrize("way", WAYS)
def test_captions_that_are_not_asked_for_change_nothing(tmp_path: Path, way: str) -> None:
    if way == "pairs":
        pytest.skip("the text of a pair is its label then")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_source(WAYS[way](tmp_path, TEXTS))
    assert not source.captioned and next(sequential(source, 4)).fields.keys() == {"image"}


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_caption_is_named_and_can_be_skipped(tmp_path: Path, way: str) -> None:
    texts = ("a dog", "  ", "two cats", "a dog")
    data = WAYS[way](tmp_path, texts)
    source = open_source(data, captions=True)
    with pytest.raises(
        Problem, match=r"(0001\.png|row 1 of|item 1 of).* has no caption that can be read: .*--skip-bad"
    ) as caught:
        captions(source)
    assert "\n" not in str(caught.value)
    source = open_source(data, captions=True, skip_bad=True)
    assert captions(source) == ["a dog", "two cats", "a dog"] and sorted(source.bad) == [1]
    assert set(next(Shuffled(source, 8).batches(0)).fields["caption"]) == {"a dog", "two cats"}


def test_captions_that_are_no_utf8_name_their_row(tmp_path: Path) -> None:
    latin = "café".encode("latin-1")
    files = as_txt(TEXTS) | {"0002.txt": latin}
    table = as_table(tmp_path, pa.array([b"a", b"b", latin, b"d"]).cast(pa.binary()), "caption")
    plain = pa.array([b"a", b"b", latin, b"d"]).view(pa.string())
    (tmp_path / "s").mkdir()
    lines = as_csv(("a", "b", "c-here", "d"))
    lines["metadata.csv"] = lines["metadata.csv"].replace(b"c-here", latin)
    escaped = as_json(TEXTS) | {"0002.json": rb'{"caption": "\ud800"}'}
    for number, data in enumerate(
        (
            written(tmp_path / "f", files), written(tmp_path / "a.tar", files), table, as_table(tmp_path / "s", plain),
            written(tmp_path / "c", lines), written(tmp_path / "j", escaped),
        )
    ):  # fmt: skip
        with pytest.raises(Problem, match=r"(0002\.png|row 2 of).* has no caption that can be read: .*(UTF|utf)-8"):
            captions(open_source(data, captions=True))
        source = open_source(data, captions=True, skip_bad=True)
        assert len(captions(source)) == 3 and list(source.bad) == [2], number


def test_one_of_several_captions_is_drawn_by_seed_and_number(tmp_path: Path) -> None:
    """As flips are: the same in a resumed run, in any number of threads, and in the shares of several processes."""
    german = ["ein Hund", None, "zwei Katzen", ""]
    spec = as_table(tmp_path, ["a dog", "an apple", "two cats", "a bird"], caption_de=german, many=[["x", "y"], [], None, ["z"]])
    source = open_source(spec, caption_column="caption*, many")
    assert source.row(0)["caption"] == ("a dog", "ein Hund", "x", "y") and source.row(3)["caption"] == ("a bird", "z")  # type: ignore[index]
    assert captions(source) == ["a dog", "an apple", "two cats", "a bird"]

    def drawn(start: int, count: int, workers: int = 0, **share: int) -> list[tuple[str, ...]]:
        batches = islice(Shuffled(source, 8, workers=workers).batches(5, start, **share), count)
        return [batch.fields["caption"] for batch in batches]  # type: ignore[misc]

    whole = drawn(0, 6)
    assert {text for texts in whole for text in texts} == {
        "a dog",
        "ein Hund",
        "x",
        "y",
        "an apple",
        "two cats",
        "zwei Katzen",
        "a bird",
        "z",
    }
    assert drawn(24, 3) == whole[3:] == drawn(24, 3, workers=2)
    assert [a + b for a, b in zip(drawn(0, 6, rank=0, world=2), drawn(0, 6, rank=1, world=2), strict=True)] == whole
    plain = Shuffled(open_source(spec), 8, Transforms(size=3, crop="random", flip=True), 0).batches(5)
    told = Shuffled(source := open_source(spec, captions=True), 8, Transforms(size=3, crop="random", flip=True), 0).batches(5)
    assert all((a.image == b.image).all() for a, b in zip(islice(plain, 3), islice(told, 3), strict=True)), "draws of their own"


def test_lines_and_rows_are_captions_of_their_own(tmp_path: Path) -> None:
    files = {**pictures("ab"), "0000.txt": b"a dog\r\n\r\nein Hund\n", "0001.txt": b"a cat"}
    source = open_source(written(tmp_path / "f", files), captions=True)
    assert source.row(0)["caption"] == ("a dog", "ein Hund")  # type: ignore[index]
    table = "image,caption\n0000.png,a dog\n0000.png,a hound\n0001.png,a cat\n"
    source = open_source(written(tmp_path / "g", {**pictures("ab"), "captions.csv": table.encode()}), captions=True)
    assert source.row(0)["caption"] == ("a dog", "a hound")  # type: ignore[index]


def test_the_style_is_a_field_and_a_word_of_the_caption(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = {
        "image": datasets.Image(),
        "caption": datasets.Value("string"),
        "style": datasets.ClassLabel(names=["noto", "other"]),
    }
    cells = {"image": [{"bytes": png(noise(0)), "path": None}] * 2, "caption": ["red apple", "car"], "style": [1, 0]}
    table = datasets.Dataset.from_dict(cells, features=datasets.Features(features))
    table.to_parquet(str(tmp_path / "t.parquet"))
    files = {"a.png": png(noise(0)), "b.png": png(noise(1))}
    rows = [
        {"file_name": "a.png", "caption": "red apple", "style": "other"},
        {"file_name": "b.png", "caption": "car", "style": "noto"},
    ]
    folder = written(tmp_path / "f", {**files, "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    items = [{"image": noise(k), **row} for k, row in enumerate(rows)]
    for data in (table, str(tmp_path / "t.parquet"), folder, items):
        source = open_source(data, captions=True, style_column="style", labels=False)
        assert source.row(0) is not None
        assert source.row(0)["style"] == "other" and source.row(0)["caption"] == ("red apple", "red apple, other")  # type: ignore[index]
        assert next(sequential(source, 2)).fields["style"] == ("other", "noto")
        assert source.styles == ("noto", "other")
        assert open_source(source, captions=True, style_column="style") is source
        assert open_source(data, captions=True, labels=False).styles == ()
        assert open_source(data, style_column="style", labels=False).row(1).keys() == {"image", "style"}  # type: ignore[union-attr]
    assert open_source(table, captions=True, label_column="style").names == ("noto", "other")
    rows[1]["style"] = ""
    broken = written(tmp_path / "g", {**files, "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    assert open_source(broken, captions=True, style_column="style").styles == ("other",)
    with pytest.raises(Problem, match=r"b\.png has no caption that can be read: column 'style' holds 0 styles"):
        open_source(broken, captions=True, style_column="style").row(1)


def test_columns_of_captions_that_are_not_there(tmp_path: Path) -> None:
    spec = as_table(tmp_path, TEXTS, "words", number=[1, 2, 3, 4])
    for options, told in (
        (
            {"captions": True},
            r"no column of captions 'caption'; the columns are image, words, number \(caption_column names another\)$",
        ),
        ({"caption_column": "word"}, r"no column of captions 'word'.*did you mean 'words'"),
        ({"caption_column": "words,de_*"}, r"no column of captions 'de_\*'"),
        (
            {"captions": True, "caption_column": "words", "style_column": "stile"},
            r"no column of styles 'stile'.*\(style_column names another\)$",
        ),
    ):
        with pytest.raises(Problem, match=told):
            open_source(spec, **options)  # type: ignore[arg-type]
    with pytest.raises(Problem, match=r"row 0 of .* has no caption that can be read: 1 in column 'number' is no text"):
        open_source(spec, caption_column="number").row(0)
    assert captions(open_source(spec, caption_column="words")) == list(TEXTS)


def test_data_without_captions_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "f", pictures())
    for data, told in (
        ("digits", "digits has no captions"),
        (folder, r"has no captions: neither a file of each picture's name, such as 0000\.txt, nor a table metadata\.csv"),
        (open_source(folder), "has no captions: .*opened with captions=True"),
    ):
        with pytest.raises(Problem, match=told):
            open_source(data, captions=True)
    with pytest.raises(
        Problem, match=r"metadata\.csv in .*/g cannot be read: it has no column 'file_name'; the columns are name, text"
    ):
        open_source(written(tmp_path / "g", as_csv(TEXTS, file="name")), captions=True)
    for second, reason in ((b"3", "is 3, and no object"), (b'{"text"', "is no JSON")):
        folder = written(tmp_path / "h", {**pictures(), "metadata.jsonl": b'{"file_name": "a.png"}\n' + second})
        with pytest.raises(Problem, match=rf"metadata\.jsonl in .*/h cannot be read: line 2 {reason}"):
            open_source(folder, captions=True)


def test_parts_and_other_sizes_keep_captions(tmp_path: Path) -> None:
    source = open_source(as_table(tmp_path, ("a", "b", "c", "d")), captions=True)
    assert captions(part(source, np.array([3, 1]), (2, 2))) == ["d", "b"]
    assert captions(open_source(source, size=2, captions=True)) == ["a", "b", "c", "d"]
    with pytest.raises(Problem, match=r"style_column 'hand': .* was opened without a column of styles"):
        open_source(source, captions=True, style_column="hand")
    other = open_source(as_table(tmp_path, ("a", "b", "c", "e")), captions=True)
    assert source.fingerprint != other.fingerprint


def test_a_table_is_selected_from_by_its_split(tmp_path: Path) -> None:
    spec = as_table(tmp_path, ("a", "b", "c", "d"), split=["train", "test", "train", "test"], by=["x", "x", "y", "z"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        assert captions(open_source(f"{spec}@test", captions=True)) == ["b", "d"]
        assert captions(open_source(f"{spec}@train,by!=x|z", captions=True)) == ["c"]
        assert captions(open_source(f"{spec}@by=x|z", captions=True)) == ["a", "b", "d"]
        for told, message in (
            ("tset", r"no row has 'tset' in column 'split': it holds test, train; did you mean 'test'"),
            ("train,bye=x", "no column 'bye'.*did you mean 'by'"),
            ("", "selects no rows"),
        ):
            with pytest.raises(Problem, match=message):
                open_source(f"{spec}@{told}")


def test_patterns_of_more_shards_than_anybody_has_are_refused_wherever_they_are() -> None:
    with pytest.raises(Problem, match="has more than"):
        list(expanded("{0..9999}{0..9999}.tar"))


def test_shards_are_one_data_set(tmp_path: Path) -> None:
    data = as_shards(tmp_path, TEXTS)
    source = open_source(data, captions=True)
    assert [source.rows.where(k).rpartition("/")[2] for k in (1, 2)] == ["s-00.tar", "s-01.tar"]
    windows = [window.tolist() for window in source.rows.windows(np.random.default_rng(0))]
    assert sorted(windows) == [[0, 1], [2, 3]], "shard by shard"
    assert source.fingerprint == open_source(data, captions=True).fingerprint
    for pattern, told in (
        ("s-{00..02}.tar", r"there is no file .*s-02\.tar"),
        ("s-{00..9999999}.tar", "counts from 0 to 9,999,999"),
        ("x-*.tar", r"there is no file .*x-\*\.tar"),
    ):
        with pytest.raises(Problem, match=told):
            open_source(str(tmp_path / pattern))
    labelled = {f"{kind}/{k}.png": png(noise(k)) for k, kind in enumerate(("dog", "cat"))}
    written(tmp_path / "c-0.tar", labelled)
    written(tmp_path / "c-1.tar", {"ant/5.png": png(noise(5)), "dog/6.png": png(noise(6))})
    source = open_source(str(tmp_path / "c-{0,1}.tar"))
    assert source.names == ("ant", "cat", "dog") and [source.label(k) for k in range(4)] == [1, 2, 0, 2]


def test_a_run_reads_captions_where_its_task_or_a_setting_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = as_table(tmp_path, TEXTS, "words")
    run = Run(data=DataConfig(source=spec, caption_column="words", held_out=0.25, transforms=Transforms(flip=True), labels=False))
    with pytest.warns(Note, match="flip mirrors pictures, and not the left and right of their captions"):
        source, held_out = open_data(run)
    assert source.captioned and held_out is not None and held_out.captioned
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        assert not open_data(Run(data=DataConfig(source=spec, labels=False)))[0].captioned
    monkeypatch.setattr(type(run.task), "captions", property(lambda self: True))
    with pytest.raises(Problem, match="no column of captions 'caption'"):
        open_data(Run(data=DataConfig(source=spec, labels=False)))


@pytest.mark.skipif(not EMOJI.exists(), reason=f"{EMOJI} is not here")
def test_emoji_in_four_styles_and_six_languages() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        train, test = (
            open_source(f"{EMOJI}@{split},style!=openmoji", caption_column="caption*", style_column="style", labels=False)
            for split in ("train", "test")
        )
        everything = open_source(EMOJI, captions=True, label_column="style")
    assert everything.names == ("noto", "twemoji", "openmoji", "fluent-flat") and len(everything) == 13_559
    assert len(train) + len(test) == 13_559 - 3_336

    def seen(source: Source) -> tuple[set[Any], set[Any], set[int]]:
        rows = [source.rows.texts(index) for index in range(0, len(source), 7)]  # type: ignore[misc]
        return {row["caption"][0] for row in rows}, {row["style"] for row in rows}, {len(row["caption"]) for row in rows}

    (trained, styles, counts), (tested, _, _) = seen(train), seen(test)
    assert not trained & tested, "whole concepts are held out"
    assert train.styles == test.styles == tuple(sorted(styles)) == ("fluent-flat", "noto", "twemoji")
    assert counts <= {2, 12} and 12 in counts
    batch = next(Shuffled(train, 64).batches(0))
    assert isinstance(batch, Batch) and any(
        "\u4e00" <= letter <= "\u9fff" for text in batch.fields["caption"] for letter in str(text)
    )


def test_pictures_of_a_tar_are_read_from_their_places(tmp_path: Path) -> None:
    """Nothing is kept of a member but its place, so that many shards need little memory."""
    written(tmp_path / "a.tar", as_txt(TEXTS))
    rows: Any = open_source(str(tmp_path / "a.tar"), captions=True).rows
    assert not rows._archive.members and rows._file is None and np.array_equal(np.asarray(rows.picture(3)), noise(3))
