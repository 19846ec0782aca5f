"""Many listeners and readers of a server, over loopback, while a search writes; and what that search feels of them.

    python benchmarks/service_load.py --work WORK [--listeners 200] [--readers 50] [--evaluations 40] [--turns 2]

The same search runs alone, beside a program that keeps a core busy and knows nothing of it, and watched, in turns: CPU
and wall seconds of its own process, from when its ledger is there to its end. What it takes more beside any busy
program is the machine's (caches, clock, cores that are halves of one), and none of the service's. Of the watched ones:
median and 95th percentile of each page and route, each reader asking once a second; events lost or doubled by
listeners. A turn takes some three minutes, and needs two cores: the search has one, server and this program the other.
"""

import argparse
import asyncio
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from search.ledger.ledger import Ledger
from tests.evaluators.conftest import write_llama

JUDGE = '''
import torch

class Slow:
    """A number of each document, and some work for it."""

    def documents(self):
        return list(range(40))

    def score(self, model, tokenizer, documents):
        flat = model.get_input_embeddings().weight.flatten().double()
        found = []
        for document in documents:
            square = torch.outer(flat, flat)
            for _ in range({work}):
                square = square @ square / square.norm()
            found.append(-float((flat[document::40] ** 2).sum()))
        return found
'''
BUSY = "import json\nwhile True: json.loads(json.dumps({str(number): [number] * 20 for number in range(1000)}))"
API = "/api/v1"
PATHS = (
    "/", "/runs/{run}", "/runs/{run}/live", "/jobs", "/new", "/compare?run={run}&run=before", "/trees", "/kinship",
    f"{API}/health", f"{API}/runs", f"{API}/runs/{{run}}", f"{API}/runs/{{run}}/individuals?order=best&most=50",
    f"{API}/runs/{{run}}/events?most=100", f"{API}/runs/{{run}}/lineage", f"{API}/runs/{{run}}/export", f"{API}/jobs",
    f"{API}/models",
)  # fmt: skip


def search(work: Path, name: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "service.cli", "evolve", "run.yml", "--out", name, "--json"]
    environment = os.environ | {"KINSHIP_CACHE": "off", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.DEVNULL)


async def begun(run: Path, process: "subprocess.Popen[bytes]") -> float:
    """CPU seconds of a search until its ledger is there, which is waited for: no page tells of it sooner."""
    while not (run / "ledger.sqlite").exists():
        await asyncio.sleep(0.05)
    times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


async def cost(process: "subprocess.Popen[bytes]", before: float) -> tuple[float, float]:
    """Wall seconds of a process from now to its end, and its CPU seconds beyond those ``before``."""
    began = time.perf_counter()
    _, status, usage = await asyncio.to_thread(os.wait4, process.pid, 0)
    if status:
        raise SystemExit(f"The search failed with {status}.")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime - before


async def alone(arguments: argparse.Namespace, run: str) -> tuple[float, float]:
    """What a search costs that nobody looks at."""
    process = search(arguments.work, run)
    return await cost(process, await begun(arguments.work / run, process))


async def beside(arguments: argparse.Namespace, run: str) -> tuple[float, float]:
    """What it costs while something else keeps the machine busy."""
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        return await alone(arguments, run)
    finally:
        busy.kill()
        busy.wait()


async def ask(port: int, path: str, accept: str = "text/html") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    await writer.drain()
    return reader, writer


async def listen(port: int, run: str, heard: list[int]) -> None:
    """The ids of every event until the run's end."""
    path = f"{API}/runs/{run}/stream"
    while True:
        reader, writer = await ask(port, path, "text/event-stream")
        event = b""
        async for line in reader:
            if line.startswith(b"event:"):
                event = line[6:].strip()
            if line.startswith(b"id:"):
                heard.append(int(line[3:]))
                if event == b"ended":
                    writer.close()
                    return
        writer.close()
        if heard:
            return  # cut off: seen by what is missing
        await asyncio.sleep(0.5)  # the run has no ledger yet


async def read(port: int, run: str, times: dict[str, list[float]], sizes: dict[str, int], number: int) -> None:
    """One request a second, of each path in turn."""
    await asyncio.sleep(random.random())
    for turn in range(number, 1_000_000):
        path = PATHS[turn % len(PATHS)]
        began = time.perf_counter()
        reader, writer = await ask(port, path.format(run=run))
        answer = await reader.read()
        times[path].append(time.perf_counter() - began)
        sizes[path] = len(answer)
        if not answer.startswith(b"HTTP/1.1 200"):
            times[f"{path} {answer[9:12].decode()}"].append(times[path].pop())
        writer.close()
        await asyncio.sleep(max(0.0, 1.0 - (time.perf_counter() - began)))


async def watched(arguments: argparse.Namespace, port: int, run: str, found: dict[str, Any]) -> tuple[float, float]:
    process = search(arguments.work, run)
    before = await begun(arguments.work / run, process)
    heard: list[list[int]] = [[] for _ in range(arguments.listeners)]
    listeners = [asyncio.create_task(listen(port, run, ids)) for ids in heard]
    readers = [
        asyncio.create_task(read(port, run, found["times"], found["sizes"], number))
        for number in range(arguments.readers)
    ]
    spent = await cost(process, before)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*listeners), 30)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    with Ledger.of_run(arguments.work / run) as ledger:
        events = ledger.events(0, 100_000)
    last = next(number for number, entry in events if entry.name == "ended")
    expected = [number for number, _ in events if number <= last]
    found["wrong"] += sum(ids != expected for ids in heard)
    found["events"] += len(expected)
    return spent


async def measure(arguments: argparse.Namespace) -> None:
    work: Path = arguments.work
    prepare(work, arguments)
    server = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", str(work), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    told = re.search(r":(\d+)$", server.stdout.readline().strip())
    assert told is not None
    found: dict[str, Any] = {"times": defaultdict(list), "sizes": {}, "wrong": 0, "events": 0}
    costs: dict[str, list[tuple[float, float]]] = {"alone": [], "beside": [], "watched": []}
    try:
        await alone(arguments, "before")  # what is compiled and read once is, for both
        for turn in range(arguments.turns):
            costs["alone"].append(await alone(arguments, f"alone-{turn}"))
            costs["beside"].append(await beside(arguments, f"beside-{turn}"))
            costs["watched"].append(await watched(arguments, int(told[1]), f"watched-{turn}", found))
        memory = Path(f"/proc/{server.pid}/status").read_text()
    finally:
        server.terminate()
        server.wait()
    report(costs, found)
    print("server, peak:", next(line for line in memory.splitlines() if line.startswith("VmHWM")).split(":")[1].strip())
    mine = resource.getrusage(resource.RUSAGE_SELF)
    print(f"this program: {mine.ru_utime + mine.ru_stime:.1f} s of CPU")


def prepare(work: Path, arguments: argparse.Namespace) -> None:
    shutil.rmtree(work, ignore_errors=True)
    names = ["base", "one", "two", "three"]
    for seed, name in enumerate(names):
        write_llama(work / name, seed)
    (work / "judge.py").write_text(JUDGE.replace("{work}", str(arguments.effort)))
    config = {
        "base": names[0],
        "founders": names[1:],
        "evaluate": {"functions": [{"function": "judge:Slow"}]},
        "strategy": {"name": "random"},
        "stop": {"evaluations": arguments.evaluations},
    }
    (work / "run.yml").write_text(yaml.safe_dump(config))


def report(costs: dict[str, list[tuple[float, float]]], found: dict[str, Any]) -> None:
    for name, each in costs.items():
        print(f"{name:8}", ", ".join(f"wall {wall:.1f} s, CPU {cpu:.2f} s" for wall, cpu in each))
    for other in ("alone", "beside"):
        ratios = [ours[1] / theirs[1] for ours, theirs in zip(costs["watched"], costs[other], strict=True)]
        print(f"CPU of the search, watched to {other}: {statistics.median(ratios):.3f} (of {len(ratios)} pairs)")
    print(f"{found['events']} events for each listener; listeners that lost or doubled one: {found['wrong']}")
    print("| page or route | requests | median | p95 | kB |\n| --- | ---: | ---: | ---: | ---: |")
    for path, times in found["times"].items():
        middle, late = (f"{1000 * value:.0f} ms" for value in (statistics.median(times), _late(times)))
        print(f"| `{path}` | {len(times)} | {middle} | {late} | {found['sizes'].get(path, 0) / 1000:.0f} |")
    everything = [second for times in found["times"].values() for second in times]
    print(json.dumps({"requests": len(everything), "p95": _late(everything)}))


def _late(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(0.95 * len(times)))] if times else 0.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder that is made anew")
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--evaluations", type=int, default=40, help="of each search")
    parser.add_argument("--effort", type=int, default=20, help="of each evaluation")
    parser.add_argument("--turns", type=int, default=2, help="searches alone and watched")
    asyncio.run(measure(parser.parse_args()))
