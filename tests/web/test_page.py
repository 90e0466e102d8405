"""The API of the playground, over HTTP: pictures as the command line's, bad values in one line, nothing out of bounds."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lodestar
from lodestar.__main__ import main
from lodestar.extras import need
from lodestar.images import load_png
from lodestar.web.desk import Desk
from lodestar.web.page import Page
from lodestar.web.requests import Limits, SampleOrder
from lodestar.web.shelf import Shelf

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'lodestar[play]'")
client = need("gradio_client")
FIELDS = list(SampleOrder.model_fields)


@pytest.fixture(scope="module")
def api(url: str) -> Any:
    return client.Client(url, verbose=False)


def post(url: str, path: str, body: Any) -> Any:
    asked = urllib.request.Request(f"{url}/gradio_api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def refused(url: str, path: str, body: Any) -> tuple[int, str]:
    """The status and the text of a request that is refused before it is queued."""
    with pytest.raises(urllib.error.HTTPError) as found:
        post(url, path, body)
    detail = json.load(found.value)["detail"]
    wrong = [each for each in detail if not each.get("is_valid")] if isinstance(detail, list) else [{"message": detail}]
    (line,) = [each.get("message") or each["msg"] for each in wrong]
    return found.value.code, line


def said(url: str, **given: Any) -> str:
    """The error of a request to sample, as it comes over the wire."""
    values = {"model": "cifar10_weak", "label": [], "steps": "2", "seed": 0, "count": 1, **given}
    code, line = refused(url, "call/sample", {"data": [values.get(name) for name in FIELDS]})
    assert code == 422
    return line


def test_pictures_are_those_of_the_command_line(api: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"model": str(folder / "plain.safetensors"), "label": ["dog", "cat"], "guidance": "cfg:2", "seed": 2**64 - 9}
    shown, archive, line, python = api.predict(**given, count=3, api_name="/sample")
    assert "<img alt=" in shown and "lodestar.load" in python
    zipfile.ZipFile(archive).extractall(tmp_path / "sent")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line)[1:])
    assert not ended.value.code
    for k in range(3):
        assert torch.equal(load_png(tmp_path / "sent" / "pictures" / f"{k:05d}.png"), load_png(f"pictures/{k:05d}.png"))
    assert (tmp_path / "sent" / "pictures" / "manifest.json").read_text() == Path("pictures/manifest.json").read_text()


def test_an_upload_is_edited_and_previews_come(api: Any, folder: Path) -> None:
    job = api.submit(
        model=str(folder / "plain.safetensors"), how="sdedit:1", picture=client.handle_file(str(folder / "dog.png")),
        steps="30", count=2, api_name="/edit",
    )  # fmt: skip
    *before, last = list(job)
    assert any("step" in str(each[0]) for each in before)
    assert "edit sdedit" in last[2] and "picture.png" in zipfile.ZipFile(last[1]).namelist()


def test_sweeps_and_runs_are_shown(api: Any, folder: Path) -> None:
    assert api.predict(sweep=str(folder / "sweep"), api_name="/sweep").count("data-mark=") == 4
    point = api.predict(sweep=str(folder / "sweep"), number=1, api_name="/point")
    assert "<img" in point and "scale 2" in point
    run = api.predict(run=str(folder / "run"), api_name="/run")
    assert "held_out" in run and "samples after 400 images" in run
    for name, endpoint in (("sweep", "/sweep"), ("run", "/run")):
        with pytest.raises(Exception, match=f"unknown {name} '/etc'"):
            api.predict(**{name: "/etc"}, api_name=endpoint)
    with pytest.raises(Exception, match="point 7: there are 0 to 1"):
        api.predict(sweep=str(folder / "sweep"), number=7, api_name="/point")


BAD = [
    ({"model": "/etc/passwd"}, "unknown model '/etc/passwd': choose from cifar10"),
    ({"model": None}, "model: a value is missing"),
    ({"model": ["cifar10"]}, "model is ['cifar10']: input should be a valid string"),
    ({"label": ["dgo"]}, "did you mean 'dog'?"),
    ({"label": "dog"}, "label is 'dog': input should be a valid array"),
    ({"label": ["x" * 5000]}, "string should have at most 4000 characters"),
    ({"prompt": "a star"}, "prompt 'a star': cifar10_weak knows no text"),
    ({"sampler": "ddmi"}, "did you mean 'ddim'?"),
    ({"steps": "banana"}, "write a number (250)"),
    ({"steps": "70"}, "this takes 70 steps: 60 are the most here"),
    ({"guidance": "cfg:-1:-1"}, "guidance cfg"),
    ({"guidance": "classifier:1", "guides": "classifier=/etc/passwd"}, "unknown model '/etc/passwd'"),
    ({"more": "temperature=0"}, "temperature is 0: input should be greater than 0"),
    ({"seed": -1}, "seed is -1: input should be greater than or equal to 0"),
    ({"seed": 2**64}, "seed is 18446744073709551616"),
    ({"seed": "many"}, "the parameters cannot be read"),
    ({"count": 17}, "this makes 17 pictures: 16 are the most here"),
    ({"count": {"path": "/etc/passwd"}}, "the parameters cannot be read"),
    ({"reference": 3}, "the parameters cannot be read"),
    ({"reference": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}, "was not uploaded by a user"),
    ({"reference": {"path": "docs/demo.png", "meta": {"_type": "gradio.FileData"}}}, "was not uploaded by a user"),
    ({"reference": {"path": "http://127.0.0.1:1/a.png", "meta": {"_type": "gradio.FileData"}}}, "not fetched from an address"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_bad_values_are_refused_in_one_line(given: dict[str, Any], expected: str, url: str) -> None:
    line = said(url, **given)
    assert expected in line and "\n" not in line and "Traceback" not in line


WRONG = ({"a": [1]}, [[["x"]]], -1, 1e300, True, "\0", "…" * 200_000)
"""Values of every kind, of which no field takes all."""
TAKEN = {"prompt": ("\0",), "fit": WRONG, **dict.fromkeys(("count", "seed", "number", "eta", "points", "strength"), (True,))}
"""Those that mean something to a field: white space is no prompt, 1 is a number, and everything is true or false."""


def test_wrong_values_at_every_field_of_every_endpoint_are_refused_and_nothing_runs(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoints and their parameters are read from the API's own description."""
    monkeypatch.setattr(Desk, "answer", None)
    with urllib.request.urlopen(f"{url}/gradio_api/info", timeout=60) as answer:
        endpoints = json.load(answer)["named_endpoints"]
    there = {"model": "cifar10_weak", "steps": "2", "sweep": str(folder / "sweep"), "run": str(folder / "run"), "number": 0}
    tried = 0
    for path, described in endpoints.items():
        names = [each["parameter_name"] for each in described["parameters"]]
        for name in names:
            for value in WRONG:
                if value in TAKEN.get(name, ()):
                    continue
                body = {key: there[key] for key in names if key in there} | {name: value}
                code, line = refused(url, f"call/v2{path}", body)
                assert code == 422 and line and "\n" not in line and "Traceback" not in line, (path, name, value, code, line)
                tried += 1
    assert len(endpoints) >= 9 and tried > 300


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("call/nonsense", {"data": []}, 404),
        ("call/v2/nonsense", {}, 404),
        ("call/v2/sample", {"model": "cifar10_weak", "colour": "red"}, 422),
        ("call/sample", {"data": ["cifar10_weak"]}, 422),
        ("call/sample", {"values": []}, 422),
        ("call/v2/sample", ["cifar10_weak"], 422),
        ("run/sample", {"data": ["cifar10_weak"]}, 404),
        ("queue/join", {"data": [], "session_hash": "x", "fn_index": 9_999}, 404),
    ],
)
def test_requests_of_no_endpoint_are_refused(path: str, body: Any, code: int, url: str) -> None:
    status, line = refused(url, path, body)
    assert status == code and "\n" not in line


def test_pictures_are_bounded_in_bytes_and_pixels(api: Any, url: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(b"\0" * (2 << 20))
    boundary = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    whole = boundary + (tmp_path / "large.png").read_bytes() + b"\r\n--x--\r\n"
    asked = urllib.request.Request(f"{url}/gradio_api/upload", whole, {"Content-Type": "multipart/form-data; boundary=x"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=30)
    assert refused.value.code == 413
    for side, expected in ((400, "picture is 400×400 pixels: 0.1 million are the most"), (900, "the parameters cannot be read")):
        Image.new("RGB", (side, side)).save(tmp_path / "wide.png")
        with pytest.raises(Exception, match=expected):
            api.predict(picture=client.handle_file(str(tmp_path / "wide.png")), api_name="/edit")


@pytest.mark.parametrize("path", ["/etc/passwd", __file__, "../../../etc/passwd", "{folder}/plain.safetensors"])
def test_no_file_is_readable(path: str, url: str, folder: Path) -> None:
    for route in ("gradio_api/file=", "file=", "gradio_api/proxy=file://"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/{route}{path.format(folder=folder)}", timeout=30)
        assert 400 <= refused.value.code < 500


def test_a_client_that_vanishes_ends_its_work(folder: Path) -> None:
    """Its connection is closed in the middle; a request of somebody else is then answered at once."""
    page = Page(Shelf([folder]), Limits())
    built = page.build()
    built.queue(default_concurrency_limit=None)
    _, url, _ = built.launch(prevent_thread_lock=True, quiet=True)
    try:
        values = {"model": "cifar10", "label": [], "steps": "900", "seed": 0, "count": 8}
        event = post(url.rstrip("/"), "call/sample", {"data": [values.get(name) for name in FIELDS]})["event_id"]
        place = url.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((place[0], int(place[1]))) as stream:
            stream.sendall(f"GET /gradio_api/call/sample/{event} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            heard = b""
            while b"step" not in heard:
                heard += stream.recv(65_536)
            assert len(page.desk.line) == 1
        until = time.monotonic() + 60
        while page.desk.line and time.monotonic() < until:
            time.sleep(0.05)
        assert not page.desk.line, "the work goes on"
    finally:
        built.close(verbose=False)


def test_it_listens_on_loopback_and_asks_nobody(folder: Path, tmp_path: Path) -> None:
    """In a process of its own: every connection that is opened is noted, and the address that is listened on."""
    code = f"""
import socket
met = []
connect, bind = socket.socket.connect, socket.socket.bind
socket.socket.connect = lambda self, to: (met.append(("to", to)), connect(self, to))[1]
socket.socket.bind = lambda self, to: (met.append(("on", to)), bind(self, to))[1]
find = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **others: (met.append(("name", (host,))), find(host, *more, **others))[1]
from lodestar.web.page import serve
from lodestar.web.requests import Limits
from lodestar.web.shelf import Shelf
page = serve(Shelf(), Limits(), "127.0.0.1", {_free()})
import time; time.sleep(3)
page.close(verbose=False)
here = ("127.0.0.1", "localhost", "::1", b"localhost")
strange = [each for each in met if isinstance(each[1], tuple) and each[1][0] not in here]
assert not strange, strange
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(lodestar.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path, env=environment)


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_port_that_is_taken_is_named_in_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = url.rpartition(":")[2]
    with pytest.raises(SystemExit) as ended:
        main(["play", "--port", port])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and f"port {port} of 127.0.0.1" in line


def test_the_example_of_the_page_runs(url: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "play.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```py\n(.*?)^```$", page, re.M | re.S)
    monkeypatch.chdir(folder)
    exec(code.replace("http://127.0.0.1:7860", url), {})
