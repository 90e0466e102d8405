"""Commands under torchrun: the result does not depend on the number of processes, and the first one alone tells it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lodestar import checkpoint
from tests.evaluation import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, kind, made in (
        ("model", "diffusion", tiny.diffusion()),
        ("guide", "classifier", tiny.classifier()),
        ("extractor", "classifier", tiny.classifier(2)),
    ):
        checkpoint.save(folder / f"{name}.safetensors", kind, made.config.to_json(), made.state_dict(), {})
    tiny.folder(folder / "pictures", 12)
    return folder


def lodestar(processes: int, *arguments: object) -> str:
    """Standard output of a command on so many processes; on one without a launcher."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes) if processes > 1 else ()
    done = subprocess.run(
        [sys.executable, *map(str, (*launch, "-m", "lodestar", *arguments))],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_processes_sample_the_missing_pictures_of_one_album(models: Path, tmp_path: Path) -> None:
    judged = ("--best-of", 2, "--judge", models / "guide.safetensors")
    sample = ("sample", models / "model.safetensors", "--label", "dog=5", "--steps", 2, "--batch-size", 2, *judged)
    folders = [tmp_path / str(processes) for processes in (1, 2)]
    told = [lodestar(processes, *sample, "--out", folder) for processes, folder in enumerate(folders, start=1)]
    assert told == [f"{folder / 'grid.png'}\n" for folder in folders]
    assert contents(folders[0]) == contents(folders[1])


def test_processes_of_two_machines_sample_into_one_store(models: Path, tmp_path: Path) -> None:
    arguments = ("sample", models / "model.safetensors", "--label", "dog=5", "--steps", 2, "--batch-size", 2, "--npz", "--out")
    lodestar(1, *arguments, tmp_path / "one")
    script = tmp_path / "machine.py"  # each has a working folder of its own
    script.write_text(
        f"import os\nos.environ |= {{'LODESTAR_CACHE': {str(tmp_path)!r} + '/cache-' + os.environ['RANK'], 'LOCAL_RANK': '0'}}\n"
        "from lodestar.__main__ import main\nmain()\n"
    )
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script)
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    words = [*map(str, (*launch, *arguments, f"file://{tmp_path}/store/two"))]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"file://{tmp_path}/store/two/samples.npz\n"
    assert contents(tmp_path / "one") == contents(tmp_path / "store" / "two")


def test_processes_measure_what_one_does(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    against = ("--reference", models / "pictures", "--extractor", models / "extractor.safetensors", "--metric", "frechet")
    against = (*against, "--metric", "kid:6", "--metric", "precision_recall")
    model = ("evaluate", models / "model.safetensors", "--count", 7, "--steps", 2, "--seeds", 2, *against)
    found: dict[str, list[dict[str, float]]] = {}
    for processes in (1, 2):
        monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / f"cache-{processes}"))
        for name, arguments in (("model", model), ("pictures", ("evaluate", models / "pictures", *against))):
            out = tmp_path / f"{name}-{processes}"
            assert lodestar(processes, *arguments, "--out", out).count("  precision ") == 1
            found.setdefault(name, []).append(json.loads((out / "report.json").read_text())["numbers"])
    for one, several in found.values():
        # So few pictures have singular covariances, whose square root magnifies the rounding.
        assert one == pytest.approx(several, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("sys.argv += ['--steps', '3']", "process 1 has --steps 2 3, and process 0 has 2"),
        ("sys.argv.remove('dog=5'); sys.argv.remove('--label')", "process 1 has --label not given, and process 0 has dog=5"),
        ("lodestar.__version__ = '0.0'", "process 1 has lodestar 0.0, and process 0 has "),
    ],
)
def test_processes_with_other_settings_or_versions_are_found_at_the_start(
    models: Path, tmp_path: Path, other: str, told: str
) -> None:
    script = tmp_path / "one.py"
    script.write_text(
        f"import os, sys, lodestar\nif os.environ['RANK'] == '1':\n    {other}\nfrom lodestar.__main__ import main\nmain()\n"
    )
    arguments = ("sample", models / "model.safetensors", "--out", tmp_path / "out", "--label", "dog=5", "--steps", 2)
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script)
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([*map(str, (*launch, *arguments))], env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    assert done.stderr.count(f"lodestar: {told}") == done.stderr.count("they have to be the same") == 1, done.stderr
