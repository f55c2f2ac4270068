"""A code location with one asset, as a run worker loads it."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from assets.console import Console
from assets.resources import Compute
from assets.stage_asset import StageAsset, stage_asset
from pipelines.launch.spec import Resources
from tests.assets.toy_stage import STAGE, ToySpec

SMALL = Resources(cpus=1, memory="2Gi", scratch="1Gi", shared_memory="64Mi")
DECLARED = StageAsset(
    dg.AssetKey("toy"),
    STAGE,
    lambda _: ToySpec(output=Path(os.environ["TOY_OUTPUT"]), seconds=float(os.environ["TOY_SECONDS"])),
    group="toys",
    description="A toy.",
    resources=SMALL,
)
defs = dg.Definitions(
    assets=[stage_asset(DECLARED)],
    jobs=[dg.define_asset_job("toy", executor_def=dg.in_process_executor)],
    resources={"compute": Compute.of_environment(), "console": Console()},
)
