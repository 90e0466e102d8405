"""Models of a hub, which is stood in for: no network is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import lodestar
from lodestar import checkpoint, library
from lodestar.__main__ import main
from lodestar.config import Problem


class Hub:
    """A hub in a folder, as far as it is used."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.private = folder, False

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
        if "/" not in name:
            raise ValueError(f"Repo id must be in the form 'owner/name': {name!r}\nand so on")
        self.private = private
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)
        return f"hub://{name}"

    def upload_file(self, path_or_fileobj: Path | bytes, path_in_repo: str, repo_id: str) -> None:
        target = self.folder / repo_id / path_in_repo
        if isinstance(path_or_fileobj, bytes):
            target.write_bytes(path_or_fileobj)
        else:
            shutil.copy(path_or_fileobj, target)

    def download(self, repository: str, name: str) -> str:
        if not (self.folder / repository / name).exists():
            raise OSError(f"404: {repository}")
        return str(self.folder / repository / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    return made


def test_a_model_put_on_a_hub_is_loaded_from_there(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "cifar10_classifier", "me/guide", "--to", "hub", "--private"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == "hub://me/guide"
    assert hub.private
    original = checkpoint.peek(library.find("cifar10_classifier"))
    assert library.load("hf:me/guide", "cpu").digest == original.digest
    card = (hub.folder / "me/guide/README.md").read_text()
    assert 'lodestar.load("hf:me/guide")' in card
    assert f"| images seen | {original.provenance['images_seen']} |" in card


def test_the_names_that_other_libraries_have(hub: Hub) -> None:
    assert lodestar.push_to_hub("cifar10_classifier", "me/guide") == "hub://me/guide"
    original = checkpoint.peek(library.find("cifar10_classifier"))
    for name in ("me/guide", "hf:me/guide", "cifar10_classifier"):
        assert lodestar.from_pretrained(name, "cpu").digest == original.digest
    with pytest.raises(Problem, match=r"cannot fetch model\.safetensors of 'me/none': 404"):
        lodestar.from_pretrained("me/none")


def test_what_a_hub_refuses_is_one_line(hub: Hub) -> None:
    problem: Any
    with pytest.raises(Problem, match="cannot write to 'nameless': Repo id must be") as problem:
        library.push_to_hub("cifar10", "nameless")
    assert "\n" not in str(problem.value)
    with pytest.raises(Problem, match=r"cannot fetch model\.safetensors of 'me/none': 404"):
        library.load("hf:me/none")


def test_no_network_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoConnectionError(Exception):
        """As of an HTTP library, whose exceptions are no OSError."""

    def fail(*given: object, **named: object) -> None:
        raise NoConnectionError("Name or service not known\nat all")

    monkeypatch.setattr(Hub, "create_repo", fail)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(lodestar.Problem, match=r"^cannot write to 'me/guide': Name or service not known$"):
        library.push_to_hub("cifar10", "me/guide")
    with pytest.raises(lodestar.Problem, match=r"^cannot fetch model\.safetensors of 'me/guide': Name or service not known$"):
        library.load("hf:me/guide")


def test_a_file_that_is_not_there_is_no_model_of_another_name() -> None:
    with pytest.raises(lodestar.Problem, match=r"^no model 'models/adm-64.safetensors': no such file or folder"):
        library.find("models/adm-64.safetensors")
    with pytest.raises(lodestar.Problem, match=r"^no model 'cifar': choose from cifar10, .* did you mean 'cifar10'"):
        library.find("cifar")
