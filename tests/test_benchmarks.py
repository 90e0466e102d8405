"""The benchmarks that nobody runs every day: that they run at all, and what they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lodestar.images import load_png, save_png
from tests.evaluation import tiny
from tests.evaluation.test_prompted import model, scenes
from tests.generators.test_unclip import lively, parts
from tests.models.test_clip import clip

__all__ = ["parts"]

FOLDER = Path(__file__).parents[1] / "benchmarks"


def gpu(*arguments: str) -> str:
    command = [sys.executable, str(FOLDER / "gpu.py"), "--device", "cpu", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.parametrize("script", sorted(path.stem for path in FOLDER.glob("*.py") if "ArgumentParser(" in path.read_text()))
def test_every_benchmark_tells_its_options(script: str) -> None:
    done = subprocess.run([sys.executable, str(FOLDER / f"{script}.py"), "--help"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_without_a_gpu_its_benchmark_says_so_and_in_small_fills_its_tables(tmp_path: Path) -> None:
    assert "there is no GPU here" in gpu() and "nothing is measured" in gpu()
    printed = gpu("--tiny", "--out", str(tmp_path / "gpu.json"))
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert told["gpu"] is None and not told["left_out"]
    tables = told["tables"]
    assert {row["network"] for row in tables["sampling"]} == {row["network"] for row in tables["training"]}
    assert {row["how"] for row in tables["sampling"]} == {"eager, float32", "eager, bfloat16"}
    assert all(row["pictures a second"] > 0 and row["% of the peak"] > 0 for row in tables["sampling"] + tables["training"])
    assert all(f"### {name}" in printed for name in tables)


def test_the_gpus_benchmark_stops_when_its_time_is_over(tmp_path: Path) -> None:
    printed = gpu("--tiny", "--seconds", "1", "--out", str(tmp_path / "gpu.json"))
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert set(told["tables"]) == {"peak"} and len(told["left_out"]) >= 4 and "left out: " in printed


def test_degradations_are_timed_without_the_published_code_too() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "degradations", "--repeats", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert "BSR degradation" in done.stdout and "64×64 by 2" in done.stdout and "skipped" not in done.stdout


def test_the_loader_is_timed_against_training() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "loader", "--repeats", "1", "--tiny"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert "PNG files in tars" in done.stdout and "the loader against training" in done.stdout and "skipped" not in done.stdout


def test_what_texts_cost_is_measured_against_going_without() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "text", "masked", "guided", "glide", "--repeats", "1", "--tiny"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    told = " ".join(done.split())
    assert (
        "attention to masked texts" in told
        and "a text, 32×32" in told
        and "CLIP guidance, 32×32" in told
        and "glide: skipped, it needs --glide PATH" in told
    )
    assert "targets:" in told and "clip:2, batch 2" in told and "clip:2,sees=clean,cuts=8" in told


def test_walks_over_codes_are_timed() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "walks", "--repeats", "1", "--tiny"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    told = " ".join(done.split())
    assert "one map of 4×4 codes" in told and all(
        f"a map by {kind}" in told for kind in ("pixelsnail", "pixelcnn", "transformer")
    )


def test_models_are_compared_by_how_they_read_and_fill_holes() -> None:
    def told(script: str, *arguments: str) -> str:
        command = [sys.executable, str(FOLDER / script), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout

    judged = told("readers.py", "shapes", "--count", "2", "--steps", "trailing:2")
    assert "| model | unseen | held-out combinations | colours in other words | all in other words |" in judged
    assert "own caption of 2" in told("readers.py", "shapes", "--data", "shapes@test", "--count", "4", "--among", "2")
    filled = told("inpaint.py", "shapes_inpaint", "--count", "1")
    assert "| shapes_inpaint |" in filled and "1.000" in filled.rpartition("| shapes_inpaint |")[2].split("|")[1], "all is kept"


def test_priors_are_timed() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "priors", "--repeats", "1", "--tiny"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert "embeddings a second, dalle2_shapes" in done and "targets:" in done and "diffusion prior" in done


def test_training_of_the_family_is_timed_against_networks_of_the_same_size() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "family", "--repeats", "1", "--tiny"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    told = " ".join(done.split())
    assert all(f"│ {name} │" in told for name in ("vae", "vqvae2", "vqvae_prior", "vqvae_transformer"))


@pytest.mark.parametrize(("part", "said"), [("nonsense", "unknown part 'nonsense'"), ("loop", "")])
def test_parts_are_chosen_by_name(part: str, said: str) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), part, "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert said in done.stderr and (done.returncode == 0) == (not said)
    assert said or ("sampling loop" in done.stdout and "dpmpp" in done.stdout)


def test_guidance_of_a_model_of_texts_is_compared_and_its_pictures_are_judged(tmp_path: Path) -> None:
    """A tiny model's noise: the page has a row for each guidance, and the grid a verdict for each prompt."""
    model().save(tmp_path / "model.safetensors")
    clip().save(tmp_path / "clip.safetensors")
    prompts = ("a red circle", "a blue box", "a red star", "a red cross")  # which the tiny CLIP has room for
    for number, (picture, prompt) in enumerate(zip(scenes(4)[0], prompts, strict=True)):
        save_png(tmp_path / "data" / f"{number}.png", picture)
        (tmp_path / "data" / f"{number}.txt").write_text(prompt)

    def text(*arguments: str) -> str:
        given = ["model.safetensors", "--captions", "data", "--steps", "2", *arguments]
        command = [sys.executable, str(FOLDER / "text.py"), *given]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=tmp_path).stdout

    assert "of 4 are right, as the judge sees it" in text("--grid", "grid.png", "--guidance", "cfg:2")
    assert load_png(tmp_path / "grid.png").shape[0] == 3
    width = load_png(tmp_path / "grid.png").shape[2]
    text("--grid", "grid.png", "--nearest", "data")
    assert load_png(tmp_path / "grid.png").shape[2] > 1.8 * width
    text("--clip", "clip.safetensors", "--cfg", "2", "--by-clip", "1", "--count", "3", "--out", "text.md", "--kept", "kept")
    page = (tmp_path / "text.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows == ["guidance", "none", "cfg:2", "clip:1"] and "everything right" in page
    assert (tmp_path / "text.png").exists() and "![" in page and "(text.png)" in page


def test_the_parts_of_a_dalle2_are_compared_on_one_page(parts: Path, tmp_path: Path) -> None:
    """Models of a moment: the page has a row for each way, for each enlargement, and for the variations."""
    whole = lively(parts)
    model().save(tmp_path / "text.safetensors")
    tiny.diffusion(classes=None, low_res=(4, 4)).save(tmp_path / "up.safetensors")
    given = [str(whole), "--text", "text.safetensors", "--upsampler", "up.safetensors", "--priors", "diffusion:best_of=1 text"]
    given += ["--count", "4", "--steps", "2", "--upsample-steps", "2", "--varied", "8", "--variations", "2", "--out", "page.md"]
    command = [sys.executable, str(FOLDER / "unclip.py"), *given]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    page = (tmp_path / "page.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    first = [row[0] for row in rows]
    assert first[:4] == [
        "way", "diffusion prior (`diffusion:best_of=1`)", "text's embedding, no prior (`text`)",
        "text model, no embedding (`text.safetensors`, cfg:4)",
    ]  # fmt: skip
    assert first[4:8] == ["enlarged by", "`up.safetensors`", "bicubic", "the pictures themselves"]
    assert rows[7][1:3] == ["inf", "0"] and 20 < float(rows[6][1]) < 60 and 0 < float(rows[6][2]) < float(rows[5][2])
    assert first[8] == "pictures of" and set(first[9:]) <= {"one thing", "two things", "three things"} and len(first) > 9
    assert all(" of " in row[1] and float(row[2]) >= 0 for row in rows[9:])


def test_forecasts_of_memory_are_compared_with_peaks() -> None:
    command = [sys.executable, str(FOLDER / "fit.py"), "--tiny"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert "digits" in told and "largest deviation of memory" in told
