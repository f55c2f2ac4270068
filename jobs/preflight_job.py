"""The job `preflight`: the check before a launch, as a run of the web UI that fails where the command would."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op's function.

import dagster as dg

from assets.preflight import crawls_of, preflight
from assets.resources import MODE_VARIABLE, Compute
from pipelines.errors import BadInput
from pipelines.recipe import Recipe
from pipelines.systems.recipe import System


def preflight_job(recipe: Recipe | System) -> dg.JobDefinition:
    """The job for a recipe."""

    @dg.op(description="Checks all that the recipe needs on the cluster, and prices it; launches nothing.")
    def check_before_launch(context: dg.OpExecutionContext, compute: Compute) -> None:
        try:
            cluster = compute.cluster()
            if cluster is None:
                raise BadInput(
                    "work runs on this machine: there is no cluster to check",
                    where=f"the environment variable {MODE_VARIABLE}",
                    remedy="set it to kubernetes in the code location's environment",
                )
            words = preflight(
                recipe,
                cluster,
                crawls_of(recipe, context.instance),
                budget=None,
                say=context.log.info,
                instance=context.instance,
            )
        except BadInput as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        context.add_output_metadata({"estimate": dg.MetadataValue.md(f"```\n{words}\n```")})

    @dg.job(
        name="preflight",
        executor_def=dg.in_process_executor,
        description="Is everything there that the recipe needs on the cluster, and what will it cost?",
    )
    def check() -> None:
        check_before_launch()

    return check
