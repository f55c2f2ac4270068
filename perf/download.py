"""CPU per HTTPS image and images per second: the download stage against plain img2dataset, in one run.

A local HTTPS server (its own processes, not counted) serves JPEG files of 256 x 256 pixels, about 44 kB. Both clients get the
same URL list, one worker process and as many threads; img2dataset stores the files as they come (`resize_mode=no`,
`skip_reencode`), which is its cheapest mode. CPU is user and system time of all processes of a client, less that of a run
on a list of one image, so that start-up does not count; images per second are counted by the server. Runs alternate.

    OMP_NUM_THREADS=1 .venv/bin/python -m perf.download --images 2000 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from io import BytesIO
from multiprocessing import Process
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageFilter

from tests.certificates import Authority

SIDE = 256
VARIANTS = 64
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"


def picture(seed: int) -> bytes:
    """A JPEG with the detail of a photograph."""
    noise = random.Random(seed).randbytes(64 * 64 * 3)
    image = Image.frombytes("RGB", (64, 64), noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    stream = BytesIO()
    image.filter(ImageFilter.SHARPEN).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def serve(listener: socket.socket, context: ssl.SSLContext, pictures: list[bytes]) -> None:
    """Answer requests, one per connection; `/times` tells when the first and the last image was asked for."""
    import asyncio

    times: list[float] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            now = time.perf_counter()
            if path == b"/times":
                span = json.dumps([times[0], times[-1]] if times else [0, 0]).encode()
                times.clear()
                writer.write(_ANSWER % (len(span), span))
            elif path == b"/robots.txt":
                writer.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            else:
                times.append(now)
                body = pictures[int(path[1:-4]) % VARIANTS]
                writer.write(_ANSWER % (len(body), body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, sock=listener, ssl=context, backlog=512)
        await server.serve_forever()

    asyncio.run(run())


def measured(command: list[str], environment: dict[str, str]) -> float:
    """CPU seconds of a command and all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr.decode()[-3000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Bench:
    """The URL lists, and both clients on them."""

    def __init__(self, folder: Path, port: int, threads: int, bundle: Path) -> None:
        self.folder, self.port, self.threads = folder, port, threads
        self.environment = {
            **os.environ, "SSL_CERT_FILE": str(bundle), "NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1",
            "PROGRESS_QUIET": "1", "WANDB_MODE": "disabled", "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        self._runs = 0

    def seconds(self) -> float:
        """From the first image that was asked for to the last, since this was last called."""
        context = ssl.create_default_context(cafile=self.environment["SSL_CERT_FILE"])
        with urllib.request.urlopen(f"https://127.0.0.1:{self.port}/times", context=context) as response:
            first, last = json.load(response)
        return last - first

    def list_of(self, images: int) -> Path:
        path = self.folder / f"urls-{images}.parquet"
        urls = [f"https://127.0.0.1:{self.port}/{at}.jpg" for at in range(images)]
        pq.write_table(pa.table({"url": urls, "caption": [f"caption {at}" for at in range(images)]}), path)
        return path

    def stage(self, images: int) -> float:
        """The download stage of this project."""
        self._runs += 1
        manifest = self.folder / f"crawl-{self._runs}.yaml"
        crawl = {
            "crawl": "bench",
            "language": "en",
            "files": [self.list_of(images).name],
            "allow_loopback": True,
        }
        manifest.write_text(yaml.safe_dump(crawl))
        output = self.folder / f"table-{self._runs}"
        spec = {
            "crawl": str(manifest), "output": str(output), "workers": 1, "threads_per_worker": self.threads,
            "parameters": {"allowed_ports": [self.port], "rows_per_shard": 1000},
        }  # fmt: skip
        path = self.folder / f"spec-{self._runs}.json"
        path.write_text(json.dumps(spec))
        used = measured([sys.executable, "-m", "pipelines.download", str(path)], self.environment)
        kept = json.loads((output / "_MANIFEST.json").read_text())["ledger"]["kept"]
        assert kept == images, f"{kept} of {images} images came"
        return used

    def img2dataset(self, images: int) -> float:
        """Plain img2dataset."""
        self._runs += 1
        output = self.folder / f"plain-{self._runs}"
        command = [
            sys.executable, "-c", "from img2dataset import main; main()",
            "--url_list", str(self.list_of(images)), "--input_format", "parquet", "--url_col", "url",
            "--caption_col", "caption", "--output_format", "webdataset", "--output_folder", str(output),
            "--processes_count", "1", "--thread_count", str(self.threads), "--resize_mode", "no",
            "--skip_reencode", "True", "--number_sample_per_shard", "1000", "--compute_hash", "sha256",
        ]  # fmt: skip
        used = measured(command, self.environment)
        kept = sum(json.loads(path.read_text())["successes"] for path in output.glob("*_stats.json"))
        assert kept == images, f"{kept} of {images} images came"
        return used


def main() -> None:
    """Run both, in turn, and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority.make(folder / "certificates")
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        pictures = [picture(seed) for seed in range(VARIANTS)]
        context = authority.server("127.0.0.1")
        server = Process(target=serve, args=(listener, context, pictures), daemon=True)
        server.start()
        try:
            bench = Bench(folder, listener.getsockname()[1], given.threads, authority.bundle())
            clients = {"this project": bench.stage, "img2dataset": bench.img2dataset}
            # The first run of each warms the file cache.
            idle = {label: min(client(1), client(1)) for label, client in clients.items()}
            rows: dict[str, list[tuple[float, float]]] = {label: [] for label in clients}
            for _ in range(given.rounds):
                for label, client in clients.items():
                    bench.seconds()
                    cpu = client(given.images)
                    rows[label].append((cpu - idle[label], bench.seconds()))
        finally:
            server.kill()
    mean = statistics.mean(len(one) for one in pictures)
    print(
        f"{given.images} HTTPS images of {mean / 1000:.0f} kB, {given.threads} threads, {given.rounds} rounds, start-up taken off"
    )
    per_image = {}
    for label, runs in rows.items():
        per_image[label] = statistics.median(1000 * cpu / (given.images - 1) for cpu, _ in runs)
        rate = statistics.median((given.images - 1) / seconds for _, seconds in runs)
        print(
            f"  {label:14s} {per_image[label]:7.2f} ms CPU per image, {1000 / per_image[label]:6.0f} images/s per core,"
            f" {rate:6.0f} images/s from the first to the last; start-up {idle[label]:.1f} s CPU"
        )
    print(f"  ratio of CPU per image: {per_image['img2dataset'] / per_image['this project']:.1f}")


if __name__ == "__main__":
    main()
