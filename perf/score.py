"""Pairs per second of the scoring stage against two loops that people write, on equal weights and shards.

(a) the loop of Chinese-CLIP's README: one image and one text at a time through cn_clip, float32;
(b) the loop of transformers: `ChineseCLIPProcessor` and `ChineseCLIPModel`, batches, float32, decoding in line.

The three take turns, shard by shard, so that whatever else the machine does falls on all of them. Weights are
random: speed does not depend on them. On a GPU, add `--device cuda`; the stage's MFU is then printed too.

    OMP_NUM_THREADS=2 python -m perf.score --pairs 96 --shards 3            # ViT-B/16, as published
    OMP_NUM_THREADS=2 python -m perf.score --model small --pairs 1500       # the quickstart's size
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cn_clip.clip
import numpy as np
import pyarrow.parquet as pq
import torch
from cn_clip.clip.model import CLIP
from cn_clip.clip.utils import image_transform
from PIL import Image

from models import clip as chinese_clip
from pipelines.foundations.clip.spec import STAGE as CLIP_STAGE
from pipelines.foundations.clip.spec import ClipParameters, ClipSpec
from pipelines.lake import manifest
from pipelines.lake.identity import pair_uid
from pipelines.score import pairs
from pipelines.score.spec import STAGE, ScoreParameters, ScoreSpec
from pipelines.stage import execute
from tests import tables

THRESHOLD, MARGIN = 0.18, 0.001
SHAPES: dict[str, dict[str, Any]] = {
    "base": {
        "embed_dim": 512, "image_resolution": 224, "vision_layers": 12, "vision_width": 768,
        "vision_patch_size": 16, "text_hidden_size": 768, "text_intermediate_size": 3072,
        "text_num_attention_heads": 12, "text_num_hidden_layers": 12, "text_max_position_embeddings": 512,
    },
    "small": {
        "embed_dim": 96, "image_resolution": 48, "vision_layers": 4, "vision_width": 128,
        "vision_patch_size": 12, "text_hidden_size": 128, "text_intermediate_size": 288,
        "text_num_attention_heads": 2, "text_num_hidden_layers": 2, "text_max_position_embeddings": 64,
    },
}  # fmt: skip
CHARACTERS = (8, 40)
"""Length of the Chinese captions: Wukong's are 22 tokens long on average."""


def reference(shape: str) -> CLIP:
    """cn_clip's network with random weights."""
    torch.manual_seed(0)
    model = CLIP(
        **SHAPES[shape], vocab_size=21128, text_attention_probs_dropout_prob=0.1, text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1, text_initializer_range=0.02, text_type_vocab_size=2,
    )  # fmt: skip
    return model.eval()


def photographs(count: int, side: int) -> list[bytes]:
    """JPEG files with the spectrum of photographs: noise over smooth ground."""
    generator = np.random.default_rng(0)
    files = []
    for _ in range(count):
        ground = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(ground.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + generator.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files


def make_rows(count: int, side: int) -> list[dict[str, Any]]:
    vocabulary = chinese_clip.bundled_vocabulary().read_text(encoding="utf-8").split("\n")
    characters = [piece for piece in vocabulary if len(piece) == 1 and "一" <= piece <= "龥"]
    generator = random.Random(0)
    rows = []
    for number, content in enumerate(photographs(count, side)):
        caption = "".join(generator.choices(characters, k=generator.randint(*CHARACTERS)))
        url = f"http://127.0.0.1/{number}.jpg"
        rows.append(
            {
                "uid": pair_uid(url, caption),
                "url": url,
                "caption": caption,
                "language": "zh",
                "image": content,
            }
        )
    return rows


Found = dict[str, float]


def readme_loop(model: CLIP, side: int, device: str) -> Callable[[Path], Found]:
    """(a): as the README's example does it, for each pair."""
    transform = image_transform(side)
    model = model.to(device)

    def score(shard: Path) -> Found:
        found = {}
        tar = pairs.Tar(shard.parent / shard.name.replace("pairs-", "shard-").replace(".parquet", ".tar"))
        with torch.no_grad():
            for chunk in pairs.chunks(shard, 1000):
                for pair in chunk:
                    image = transform(Image.open(io.BytesIO(tar.read(pair)))).unsqueeze(0).to(device)
                    text = cn_clip.clip.tokenize([pair.caption]).to(device)
                    seen, read = model.encode_image(image), model.encode_text(text)
                    seen, read = (
                        seen / seen.norm(dim=-1, keepdim=True),
                        read / read.norm(dim=-1, keepdim=True),
                    )
                    found[pair.uid] = (seen @ read.T).item()
        tar.close()
        return found

    return score


def transformers_loop(folder: Path, side: int, device: str, batch: int) -> Callable[[Path], Found]:
    """(b): processor and model, batch after batch."""
    from transformers import BertTokenizerFast, ChineseCLIPImageProcessor, ChineseCLIPModel

    model: Any = ChineseCLIPModel.from_pretrained(folder).eval().to(device)
    processor = ChineseCLIPImageProcessor.from_pretrained(folder)
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))

    def score(shard: Path) -> Found:
        found = {}
        tar = pairs.Tar(shard.parent / shard.name.replace("pairs-", "shard-").replace(".parquet", ".tar"))
        with torch.no_grad():
            for chunk in pairs.chunks(shard, batch):
                images = [Image.open(io.BytesIO(tar.read(pair))).convert("RGB") for pair in chunk]
                captions = [pair.caption for pair in chunk]
                options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": 52}
                texts = tokenizer(captions, return_tensors="pt", **options).to(device)
                pixels = processor(images, return_tensors="pt").to(device)
                seen = model.get_image_features(**pixels).pooler_output
                read = model.get_text_features(**texts).pooler_output
                seen, read = seen / seen.norm(dim=-1, keepdim=True), read / read.norm(dim=-1, keepdim=True)
                found |= {
                    pair.uid: one for pair, one in zip(chunk, (seen * read).sum(-1).tolist(), strict=True)
                }
        tar.close()
        return found

    return score


def stage(tables_of: dict[str, Path], clip: Path, scratch: Path, given: argparse.Namespace) -> Any:
    """The stage itself, on a table of one shard; its parameters by precision. Returns scores, seconds, metrics."""

    def run(shard: str, precision: str) -> tuple[Found, float, dict[str, Any]]:
        output = scratch / f"scores-{precision}-{shard}"
        shutil.rmtree(output, ignore_errors=True)
        parameters = ScoreParameters(precision=precision)  # type: ignore[arg-type]
        made = execute(
            STAGE,
            ScoreSpec(
                raw_pairs=tables_of[shard], clip=clip, output=output, parameters=parameters, device=given.device,
                batch=given.batch, chunk=max(given.batch, given.chunk), threads=torch.get_num_threads(),
            ),
        )  # fmt: skip
        files = [path for path in manifest.files(output, ".parquet") if path.name.startswith("scores-")]
        found = {row["uid"]: row["score"] for path in files for row in pq.read_table(path).to_pylist()}
        # The rate that the stage states leaves out what happens once in a run: loading, publishing.
        return found, len(found) / made.metrics["pairs_per_second"], made.metrics

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m perf.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SHAPES, default="base")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--side", type=int, default=320, help="width of the images, in pixels")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="on a GPU: 256")
    parser.add_argument("--chunk", type=int, default=2048)
    given = parser.parse_args()
    rows = make_rows(given.pairs, given.side)
    model = reference(given.model)
    side = SHAPES[given.model]["image_resolution"]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        state = OrderedDict((f"module.{key}", value) for key, value in model.state_dict().items())
        torch.save({"epoch": 0, "name": "random", "state_dict": state}, scratch / "clip_cn_random.pt")
        del state
        parameters = ClipParameters(weights=str(scratch / "clip_cn_random.pt"))
        execute(CLIP_STAGE, ClipSpec(output=scratch / "clip", parameters=parameters))
        tables_of = {
            str(number): tables.raw_pairs(scratch / f"raw-{number}", rows[number :: given.shards], shards=1)
            for number in range(given.shards)
        }
        own = stage(tables_of, scratch / "clip", scratch, given)
        loops = {
            "a": readme_loop(model, side, given.device),
            "b": transformers_loop(manifest.folder(scratch / "clip"), side, given.device, given.batch),
        }
        precisions = ("float32", "bfloat16")
        seconds: dict[str, float] = dict.fromkeys([*loops, *precisions], 0.0)
        scores: dict[str, Found] = {key: {} for key in seconds}
        metrics: dict[str, Any] = {}
        for shard, table in tables_of.items():
            (file,) = pairs.shards(table)
            for key, loop in loops.items():
                started = time.perf_counter()
                scores[key] |= loop(file)
                seconds[key] += time.perf_counter() - started
            for precision in precisions:
                found, took, metrics[precision] = own(shard, precision)
                scores[precision] |= found
                seconds[precision] += took
    show(given, seconds, scores, metrics)


def show(
    given: argparse.Namespace, seconds: dict[str, float], scores: dict[str, Found], metrics: Any
) -> None:
    names = {
        "a": "(a) cn_clip, README loop, float32", "b": "(b) transformers loop, float32",
        "float32": "this stage, float32", "bfloat16": "this stage, bfloat16",
    }  # fmt: skip
    print(
        f"\n{given.model} model, {given.pairs} pairs, {given.device}, {torch.get_num_threads()} threads, batch {given.batch}"
    )
    print(f"{'':36}{'pairs/s':>9}{'x (a)':>8}{'x (b)':>8}{'largest difference from (a)':>30}{'flips':>7}")
    for key, name in names.items():
        rate = given.pairs / seconds[key]
        differences = [abs(scores[key][uid] - score) for uid, score in scores["a"].items()]
        flips = sum(
            (scores[key][uid] > THRESHOLD) != (score > THRESHOLD) and abs(score - THRESHOLD) > MARGIN
            for uid, score in scores["a"].items()
        )
        print(
            f"{name:36}{rate:9.2f}{seconds['a'] / seconds[key]:8.2f}{seconds['b'] / seconds[key]:8.2f}"
            f"{max(differences):30.2e}{flips:7}"
        )
    for precision, found in metrics.items():
        mfu = f", MFU {found['mfu']:.1%} of {found['device']}" if "mfu" in found else ""
        print(
            f"{precision}: {found['teraflops_per_rank']:.3f} TFLOP/s, waiting for data {found['waiting_for_data']:.1%}{mfu}"
        )


if __name__ == "__main__":
    main()
