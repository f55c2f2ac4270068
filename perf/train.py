"""How fast the trainer is, stage by stage, held against a plain Hugging Face Trainer with a padding collator.

    python perf/train.py                         the quickstart's model on a CPU (OMP_NUM_THREADS sets the threads)
    python perf/train.py --size one-gpu --batch 16 --steps 9     recipes/one-gpu.yaml, each part a 64th of its size
    python perf/train.py --size 7b --batch 16    random weights of Qwen2-7B and CLIP ViT-L/14-336; wants a GPU

Both train the same model on the same batches in the same order, in one run, turn by turn, so that what else
the machine does falls on both. Tokens are those that are no padding. The peer is what people write first: AutoModel,
`Trainer`, pad to the longest, logits of every position.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainerCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.architecture import Architecture, ClipEncoder, Visual
from models.chat import IGNORED, Encoded
from models.factory import declared_width, language_model
from models.language_model import SmallConfig, Supervision, make_language_model, supervised_losses
from models.packing import Packing
from models.vision import VisionConfig
from models.visual import make_visual_module
from pipelines.progress import Progress
from pipelines.stage import Work
from pipelines.systems.recipe import read_system
from pipelines.training.loop import train
from pipelines.training.order import make_order
from pipelines.training.plan import PackPlan, make_plan
from pipelines.training.precision import resolve_precision
from pipelines.training.samples import Sample, measure
from pipelines.training.spec import Optimisation

RECIPE = Path(__file__).parent.parent / "recipes" / "one-gpu.yaml"
CLOCK = {"now": time.monotonic}
"""Wall-clock time; or CPU time, on a machine that others use too (one thread, no waits: `--cpu-time`)."""
WARM_UP = 3
"""Steps that are not counted: first calls compile and allocate."""
STAGES = {"pretraining": {"visual": 1e-3}, "tuning": {"visual": 5e-4, "language_model": 5e-4}}
"""Stage -> what is trained."""
BRIDGE = {"pretraining": {"visual.bridge": 1e-3}, "tuning": {"visual.bridge": 5e-4, "language_model": 5e-4}}
"""As LLaVA, Parrot and recipes/one-gpu.yaml do."""


@dataclass(frozen=True)
class Size:
    """A model's shape, as far as the data depend on it."""

    vocabulary: int
    pack_tokens: int
    image_tokens: int
    image_size: int
    text_scale: float
    """Lengths of texts, as a multiple of those that fit the small model."""
    stages: dict[str, dict[str, float]]


SIZES = {
    "small": Size(512, 2048, 8, 48, 1.0, STAGES),
    "one-gpu": Size(151_936 // 16, 4096, 196, 224, 3.0, BRIDGE),
    "7b": Size(152_064, 8192, 576, 336, 3.0, STAGES),
}


class Model(nn.Module):
    """A visual module and a language model: as the trainer calls it, and as the peer does."""

    def __init__(self, size: str, stage: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        if size == "7b":
            with torch.device("cuda"):
                shape = Qwen2Config(
                    vocab_size=SIZES[size].vocabulary, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                    num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=8192, dtype=torch.bfloat16,
                )  # fmt: skip
                self.language_model = Qwen2ForCausalLM._from_config(shape, dtype=torch.bfloat16)
                visual = Visual(encoder={"kind": "clip"}, bridge={"kind": "mlp"})
                self.visual = make_visual_module(visual, 3584, seed=0)
        elif size == "one-gpu":
            parts = _a_64th(read_system(RECIPE).architecture)
            self.language_model = language_model(parts.language_model)
            self.visual = make_visual_module(parts.visual, declared_width(parts.language_model), seed=0)
        else:
            self.language_model = make_language_model(
                SmallConfig(), vocabulary=SIZES[size].vocabulary, seed=0
            )
            self.visual = make_visual_module(VisionConfig(), 128, seed=0)
        self.image_tokens = self.visual.tokens
        self.image_id = self.language_model.config.vocab_size - 1
        self.requires_grad_(False)
        for name in SIZES[size].stages[stage]:
            self.get_submodule(name).requires_grad_(True)

    def embed(self, ids: Tensor, pixels: Tensor) -> Tensor:
        words = self.language_model.get_input_embeddings()(ids)
        seen = self.visual.placed(self.visual(pixels))
        return words.masked_scatter((ids == self.image_id).unsqueeze(-1), seen.to(words.dtype))

    def forward(
        self, ids: Tensor, labels: Tensor, pixels: Tensor | None = None,
        packing: Packing | None = None, supervision: Supervision | None = None,
    ) -> Tensor:  # fmt: skip
        assert pixels is not None
        return supervised_losses(self.language_model, self.embed(ids, pixels), labels, packing, supervision)


def _a_64th(parts: Architecture) -> Architecture:
    """A quarter of the widths and of the layers, a sixteenth of the vocabulary: each part does a 64th of its work on a token,
    so that their shares are those of the recipe."""
    encoder, told = parts.visual.encoder, parts.language_model.architecture
    assert isinstance(encoder, ClipEncoder)
    names = ("width", "layers", "mlp_width")
    encoder = encoder.model_copy(update={name: getattr(encoder, name) // 4 for name in names})
    shape = told | {
        name: told[name] // 4 for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    }
    shape["vocab_size"] = told["vocab_size"] // 16
    return Architecture(
        visual=parts.visual.model_copy(update={"encoder": encoder, "weights": None}),
        language_model=parts.language_model.model_copy(update={"architecture": shape, "weights": None}),
    )


class Peer(nn.Module):
    """The same model under the Trainer's calling convention."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        # What AutoModel takes by itself; this project's small models ask for the plain one on a CPU.
        model.language_model.set_attn_implementation("sdpa")
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, pixel_values: Tensor) -> Any:
        return self.model.language_model(
            inputs_embeds=self.model.embed(input_ids, pixel_values),
            attention_mask=attention_mask,
            labels=labels,
        )


@dataclass(frozen=True)
class Data:
    """Conversations with an image each; text lengths are spread as in LLaVA's data (log-normal)."""

    stage: str
    image_tokens: int
    image_id: int
    image_size: int
    scale: float

    def __len__(self) -> int:
        return 512

    def text(self, index: int, epoch: int | None) -> tuple[Encoded, str]:
        draw = np.random.default_rng(index)
        # Captions are short and alike; conversations of several turns are long and uneven.
        middle, spread = (24, 0.35) if self.stage == "pretraining" else (80 * self.scale, 0.8)
        length = int(min(max(8, draw.lognormal(math.log(middle), spread)), 1500))
        asked = 8 if self.stage == "pretraining" else length // 2
        words = draw.integers(0, 400, length).tolist()
        ids = [self.image_id] * self.image_tokens + words
        labels = [IGNORED] * (self.image_tokens + min(asked, length - 4)) + words[min(asked, length - 4) :]
        return Encoded(ids, labels), self.stage

    def images(self, index: int) -> int:
        return 1

    def sample(self, index: int, epoch: int) -> Sample:
        text, group = self.text(index, epoch)
        pixels = np.full((3, self.image_size, self.image_size), index % 251, dtype=np.uint8)
        return Sample(text, pixels, group)


@dataclass
class Timed:
    """Seconds at which steps ended."""

    ends: list[float]

    def seconds_per_step(self) -> float:
        return (self.ends[-1] - self.ends[WARM_UP - 1]) / (len(self.ends) - WARM_UP)


class Watching(Progress):
    def __init__(self) -> None:
        super().__init__("perf", silent=True)
        self.timed, self.figures = Timed([]), {}

    def advance(self, units: int = 1, **figures: float) -> None:
        self.timed.ends.append(CLOCK["now"]())
        self.figures = figures


class StepEnds(TrainerCallback):
    def __init__(self) -> None:
        self.timed = Timed([])

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.timed.ends.append(CLOCK["now"]())


def ours(
    model: Model, data: Data, plan: PackPlan, optimisation: Optimisation
) -> tuple[Timed, dict[str, Any]]:
    watching = Watching()
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder) / "_work" / "perf")
        work.out.mkdir(parents=True)
        trained = train(
            model.train(), data, pad=0, optimisation=optimisation, work=work, progress=watching, what="perf", plan=plan
        )  # fmt: skip
    return watching.timed, trained.metrics


def theirs(model: Model, data: Data, drawn: list[int], optimisation: Optimisation, precision: str) -> Timed:
    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(drawn)

    def padded(samples: Sequence[Sample]) -> dict[str, Tensor]:
        longest = max(len(sample.text.ids) for sample in samples)
        lengths = [len(sample.text.ids) for sample in samples]
        return {
            "input_ids": torch.tensor([s.text.ids + [0] * (longest - n) for s, n in zip(samples, lengths, strict=True)]),
            "labels": torch.tensor([s.text.labels + [IGNORED] * (longest - n) for s, n in zip(samples, lengths, strict=True)]),
            "attention_mask": torch.tensor([[1] * n + [0] * (longest - n) for n in lengths]),
            "pixel_values": torch.from_numpy(np.stack([sample.pixels for sample in samples])),
        }  # fmt: skip

    ends = StepEnds()
    cpu = not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=optimisation.batch_size, max_steps=optimisation.steps,
            learning_rate=5e-4, lr_scheduler_type="cosine", optim="adamw_torch", max_grad_norm=1.0, logging_steps=1,
            save_strategy="no", report_to=[], use_cpu=cpu, bf16=precision == "bf16", remove_unused_columns=False,
            disable_tqdm=True, dataloader_pin_memory=False, logging_strategy="no",
        )  # fmt: skip
        trainer = InOrder(
            model=Peer(model.train()), args=arguments, data_collator=padded,
            train_dataset=[data.sample(index, 0) for index in drawn], callbacks=[ends],
        )  # fmt: skip
        trainer.train()
    return ends.timed


def turn(told: argparse.Namespace) -> dict[str, Any]:
    """One turn of one side, in this process: its seconds per step, and what else it knows."""
    stage, (optimisation, data) = told.stages[0], _prepared(told, told.stages[0])
    order = make_order({"all": np.arange(len(data))}, None, 0)
    drawn = [sample for step in range(told.steps) for _, sample in order.batch(step, told.batch)]
    if told.turn == "theirs":
        timed = theirs(Model(told.size, stage), data, drawn, optimisation, resolve_precision(told.precision))
        return {"seconds": timed.seconds_per_step()}
    plan = make_plan(
        order, measure(data), steps=told.steps, batch_size=told.batch, pack_tokens=optimisation.pack_tokens
    )
    timed, metrics = ours(Model(told.size, stage), data, plan, optimisation)
    return {"seconds": timed.seconds_per_step(), **metrics}


def _prepared(told: argparse.Namespace, stage: str) -> tuple[Optimisation, Data]:
    size = SIZES[told.size]
    optimisation = Optimisation(
        steps=told.steps, batch_size=told.batch, learning_rates=size.stages[stage], zero_stage=told.zero_stage,
        pack_tokens=None if told.padded else size.pack_tokens, precision=told.precision, warmup_steps=2,
        fused_kernels=told.fused_kernels, compile=told.compile, data_workers=told.data_workers,
        activation_checkpointing=told.activation_checkpointing, checkpoint_every=10**6,
    )  # fmt: skip
    return optimisation, Data(stage, size.image_tokens, size.vocabulary - 1, size.image_size, size.text_scale)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side, one after the other")
    parser.add_argument("--zero-stage", type=int, default=0)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--data-workers", type=int, default=0)
    parser.add_argument("--padded", action="store_true", help="rows padded instead of packed")
    parser.add_argument("--fused-kernels", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--turn", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU seconds: for a machine in use, with OMP_NUM_THREADS=1",
    )
    told = parser.parse_args()
    if told.cpu_time:
        CLOCK["now"] = time.process_time
    if told.turn:
        print(json.dumps(turn(told)), flush=True)
        return
    for stage in told.stages:
        print(json.dumps(compared(told, stage)), flush=True)


def compared(told: argparse.Namespace, stage: str) -> dict[str, Any]:
    """The two sides' figures for a stage, and the ratio of their speeds, turn by turn."""
    sides = ["ours"] if told.no_peer else ["ours", "theirs"]
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    arguments = [one for one in sys.argv[1:] if one not in STAGES and one != "--stages"]
    for _ in range(told.rounds):
        for side in sides:
            # A process of its own: the Trainer would join the group of ranks that ours has made.
            done = subprocess.run(
                [sys.executable, __file__, *arguments, "--stages", stage, "--turn", side],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            turns[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
    _, data = _prepared(told, stage)
    order = make_order({"all": np.arange(len(data))}, None, 0)
    rows = np.array(
        [[len(data.text(one, None)[0].ids) for _, one in order.batch(step, told.batch)] for step in range(told.steps)]
    )  # fmt: skip
    tokens = rows[WARM_UP:].sum() / (told.steps - WARM_UP)
    speeds = {side: [tokens / one["seconds"] for one in found] for side, found in turns.items()}
    last = turns["ours"][-1]
    result: dict[str, Any] = {
        "stage": stage,
        "tokens_per_second": round(statistics.median(speeds["ours"])),
        **{name: last.get(name) for name in ("mfu", "padding", "data_wait", "peak_memory_gb", "precision")},
        "threads": torch.get_num_threads(),
    }
    if not told.no_peer:
        ratios = [mine / peer for mine, peer in zip(speeds["ours"], speeds["theirs"], strict=True)]
        result["peer_tokens_per_second"] = round(statistics.median(speeds["theirs"]))
        result["peer_padding"] = round(float(1 - rows.sum() / (rows.max(axis=1).sum() * told.batch)), 4)
        result["ratio"] = round(statistics.median(ratios), 2)
        result["ratios"] = [round(ratio, 2) for ratio in ratios]
    return result


if __name__ == "__main__":
    main()
