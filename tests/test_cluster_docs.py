"""The manifests of docs/cluster.md: scripts that a shell reads, YAML with what a Job needs, and commands that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lodestar.cli import app

TEXT = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)


def commands() -> list[list[str]]:
    """Every command of lodestar in the page, as words."""
    lines = [line for block in (*blocks(""), *blocks("bash")) for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if "lodestar " in line]
    return [words[words.index("lodestar") + 1 :] for words in found]


def test_the_script_is_one_that_a_shell_reads() -> None:
    (script,) = blocks("bash")
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^#SBATCH --[a-z-]+", script, re.M)) == script.count("#SBATCH")


def test_the_manifest_has_what_a_job_needs() -> None:
    yaml: Any = pytest.importorskip("yaml")
    (text,) = blocks("yaml")
    service, job = yaml.safe_load_all(text)
    assert (service["apiVersion"], service["kind"], job["apiVersion"], job["kind"]) == ("v1", "Service", "batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completions"] == spec["parallelism"] and f"--nnodes={spec['parallelism']}" in container["args"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]} and service["spec"]["clusterIP"] == "None"
    assert f"--rdzv-endpoint={job['metadata']['name']}-0.{pod['subdomain']}:29500" in container["args"]
    assert service["metadata"]["name"] == pod["subdomain"] and service["spec"]["ports"][0]["port"] == 29500
    assert f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}" in container["args"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert all(isinstance(each, str) for each in container["args"]) and all(isinstance(e["value"], str) for e in container["env"])


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_and_options_exist(words: list[str]) -> None:
    known = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    options = {option for parameter in known.params for option in parameter.opts}
    assert options.issuperset(word for word in words if word.startswith("--"))


def test_the_arithmetic_holds() -> None:
    """Days, seconds and shares of the tables follow from the counted operations and the stated assumptions."""
    per_gpu = 0.35 * 989 / (3 * 3.96)
    assert round(per_gpu) == 29
    reduce = 2 * 0.558 * 4 / 40  # float32, both ways of the ring
    for gpus, days in ((16, 15), (32, 8.6), (64, 5.6), (128, 4.0)):
        computing = 256 / (per_gpu * gpus)
        found = (computing + reduce) * 497e6 / 256 / 86_400
        assert found == pytest.approx(days, rel=0.05), (gpus, found)
        (row,) = re.findall(rf"^\| {gpus} \|.*$", TEXT, re.M)
        share = float(re.findall(r"(\d+) %", row)[0])
        assert share == pytest.approx(100 * computing / (computing + reduce), abs=2), (row, computing)
