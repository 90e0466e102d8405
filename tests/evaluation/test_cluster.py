"""Clusters of features as classes: what is found, what is written, what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lodestar.config import Problem
from lodestar.data import Source, open_source
from lodestar.data.arrays import ArrayRows
from lodestar.data.parquet import write_parquet
from lodestar.evaluation.cluster import cluster, label

from . import tiny


def islands(sizes: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Features in islands far apart, shuffled, and which island each is of."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    features = rng.normal(size=(len(truth), 4)) + 50 * np.eye(4)[truth]
    # One direction of a much larger scale, which says nothing.
    return torch.from_numpy(np.c_[features, 1e4 * rng.normal(size=len(truth))]).float(), truth


def test_clusters_are_found_whatever_the_scale_of_a_feature_and_the_largest_comes_first() -> None:
    features, truth = islands((20, 50, 30))
    found = cluster(features, 3, truth)
    assert found.sizes == (50, 30, 20)
    assert np.array_equal(found.labels, np.array([2, 0, 1])[truth])
    assert found.information == pytest.approx(1)
    assert found.purity == 1
    assert found.names == ("cluster-0", "cluster-1", "cluster-2")


def test_agreement_is_measured_where_there_are_labels() -> None:
    features, truth = islands((20, 50, 30))
    merged = cluster(features, 3, np.minimum(truth, 1))
    assert merged.purity == 1, "each cluster is of one class, though a class has two clusters"
    assert merged.information is not None and 0.5 < merged.information < 0.95
    chance = cluster(features, 3, np.random.default_rng(1).integers(0, 2, 100))
    assert chance.information is not None and chance.information < 0.1
    assert chance.purity is not None and 0.5 <= chance.purity < 0.7
    assert cluster(features, 3).information is None


def test_the_seed_decides() -> None:
    features = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(cluster(features, 8, seed=1).labels, cluster(features, 8, seed=1).labels)


def test_more_clusters_than_pictures_that_differ_are_refused() -> None:
    features = torch.eye(3).repeat(4, 1)
    with pytest.raises(Problem, match="--clusters 4: only 3 of the 12 pictures differ"):
        cluster(features, 4)


def test_what_is_written_are_the_files_themselves_with_classes(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "pictures", 12)
    source = open_source(str(folder))
    found = label(source, tiny.extractor(), 3, tmp_path / "made" / "labelled.parquet")
    assert found.information is None
    made = open_source(str(tmp_path / "made" / "labelled.parquet"))
    assert made.names == ("cluster-0", "cluster-1", "cluster-2")
    assert made.rows.labels is not None and made.rows.labels.tolist() == found.labels.tolist()
    for number, path in enumerate(sorted(folder.iterdir())):
        assert made.rows.encoded(number) == path.read_bytes()
    with pytest.raises(Problem, match="exists: choose another --out"):
        label(source, tiny.extractor(), 3, tmp_path / "made" / "labelled.parquet")


def test_bad_pictures_are_left_out_and_the_others_keep_their_clusters(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "pictures", 12)
    whole = label(open_source(str(folder)), tiny.extractor(), 3, tmp_path / "whole.parquet")
    (folder / "04b.png").write_bytes(b"no picture")
    found = label(open_source(str(folder), skip_bad=True), tiny.extractor(), 3, tmp_path / "rest.parquet")
    assert found.labels.tolist() == whole.labels.tolist()
    assert (tmp_path / "rest.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_more_clusters_than_pictures_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="--clusters 25: noise has only 24 pictures"):
        label(tiny.reference(24), tiny.extractor(), 25, tmp_path / "x.parquet")
    assert not any(tmp_path.iterdir())


def test_pictures_that_are_in_no_file_become_png(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    rows = Source(ArrayRows(images), "grey", channels=1).rows
    for number in range(3):
        with Image.open(io.BytesIO(rows.encoded(number))) as picture:
            assert picture.format == "PNG"
            assert np.array_equal(np.asarray(picture), images[number])


def test_a_table_is_written_in_row_groups_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr("lodestar.data.parquet._GROUP_ROWS", 4)
    write_parquet(tmp_path / "a.parquet", [(b"x", k % 2) for k in range(10)], ("no", "yes"))
    assert [pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(k).num_rows for k in range(3)] == [4, 4, 2]

    def broken():
        yield b"x", 0
        raise ValueError("bad picture")

    with pytest.raises(ValueError, match="bad picture"):
        write_parquet(tmp_path / "b.parquet", broken(), ("no", "yes"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
