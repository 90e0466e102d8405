"""The playground under load: many clients at once, of which some ask for the impossible, and some vanish.

Start ``lodestar play FOLDER --limit waiting=1000``, then ``python benchmarks/play.py --pid PID``. Answers of one seed have to be
the same to the bit. Told are the numbers of answers, of refusals and of clients that left, and the server's memory.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import http.client
import json
import random
import re
import threading
import time
from pathlib import Path
from typing import Any

FIELDS = ("model", "label", "prompt", "sampler", "steps", "guidance", "guides", "more", "reference", "seed", "count", "then")
WRONG: tuple[dict[str, Any], ...] = (
    {"steps": "many"},
    {"seed": -1},
    {"guidance": "cgf"},
    {"model": "/etc/passwd"},
    {"count": "x"},
)


class Clients:
    """Clients that share a number of requests."""

    def __init__(self, address: str, model: str, pid: int, requests: int) -> None:
        self.address, self.model, self.pid, self.left = address, model, pid, requests
        self.lock, self.told = threading.Lock(), collections.Counter[str]()
        self.seen: dict[int, str] = {}
        self.memory: list[float] = []
        self.tenth = max(requests // 10, 1)

    def work(self, seed: int) -> None:
        """Ask until no requests are left."""
        chance = random.Random(seed)
        while True:
            with self.lock:
                self.left -= 1
                if self.left < 0:
                    return
                if self.left % self.tenth == 0:
                    self.memory.append(resident(self.pid))
            what = chance.choices(("answered", "refused", "vanished"), (8, 1, 1))[0]
            given = {"model": self.model, "label": [], "steps": "2", "seed": chance.randrange(50), "count": 1}
            given |= {"steps": "40"} if what == "vanished" else chance.choice(WRONG) if what == "refused" else {}
            try:
                found = self.ask([given.get(name) for name in FIELDS], leaves=what == "vanished")
            except OSError as error:
                found, what = "", f"failed: {type(error).__name__}"
            if what == "answered":
                what = self.judged(given["seed"], found)
            elif what == "refused" and not found.startswith("422"):
                what = "not refused"
            with self.lock:
                self.told[what] += 1

    def judged(self, seed: int, found: str) -> str:
        """What an answer is: as the others of its seed, or another one."""
        pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", found)
        if "event: complete" not in found or not pictures:
            return f"no answer: {found[-200:]}"
        digest = hashlib.sha256(pictures[-1].encode()).hexdigest()
        with self.lock:
            return "answered" if self.seen.setdefault(seed, digest) == digest else "WRONG"

    def ask(self, data: list[Any], leaves: bool) -> str:
        """The stream of an answer, or the status of a refusal with its text; leaves: hang up in the middle."""
        line = http.client.HTTPConnection(self.address, timeout=300)
        try:
            line.request("POST", "/gradio_api/call/sample", json.dumps({"data": data}), {"Content-Type": "application/json"})
            answer = line.getresponse()
            if answer.status != 200:
                return f"{answer.status} {answer.read().decode()}"
            event = json.load(answer)["event_id"]
            line.request("GET", f"/gradio_api/call/sample/{event}")
            answer = line.getresponse()
            return answer.read(200).decode(errors="replace") if leaves else answer.read().decode()
        finally:
            line.close()


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> None:
    """Ask, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:7860")
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pid", type=int, required=True, help="The process of the playground, whose memory is told.")
    given = parser.parse_args()
    clients, began = Clients(given.address, given.model, given.pid, given.requests), time.monotonic()
    threads = [threading.Thread(target=clients.work, args=(seed,)) for seed in range(given.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{given.requests} requests of {given.clients} clients in {time.monotonic() - began:.0f} s: {dict(clients.told)}")
    print(f"memory in MiB, after each tenth: {', '.join(f'{each:.0f}' for each in clients.memory)}")


if __name__ == "__main__":
    main()
