"""What no cluster can do as it is described: refused before anything is asked of one, by a preflight and by a launch."""

from __future__ import annotations

from pathlib import PurePath

from pipelines.errors import BadInput
from pipelines.lake import location
from pipelines.launch.cluster import Cluster
from pipelines.launch.spec import JobSpec


def refuse_impossible(job: JobSpec, cluster: Cluster) -> None:
    """Refuse early what the cluster would refuse late, or never. Whether any node is large enough: `Cluster.check_possible`.

    Raises:
        BadInput: names what is asked, where, and what to ask instead.
    """
    output = location.url(job.spec.output)
    if not output.startswith("/") and "://" not in output:
        raise BadInput(
            f"the workspace is a relative path ({output}): a pod has no such folder",
            where="recipe: workspace",
            remedy="use a URL (s3://bucket/folder), or the absolute path of a volume that all pods mount",
        )
    mounted = [volume.path for volume in cluster.volumes if not volume.read_only]
    if output.startswith("/") and not any(PurePath(output).is_relative_to(path) for path in mounted):
        raise BadInput(
            f"no volume of the pods holds {output}: what a pod wrote there would be lost with it "
            f"(volumes to write on: {', '.join(mounted) or 'none'})",
            where="recipe: workspace; the cluster's file: volumes",
            remedy="add the volume claim to `volumes`, or put the workspace on one that is there, or in an object store",
        )
    if job.distributed and not job.resources.gpus and job.spec.processes % job.resources.nodes:
        raise BadInput(
            f"{job.spec.processes} processes cannot be shared equally by {job.resources.nodes} nodes",
            where=f"recipe: processes; {job.asked}.nodes",
            remedy="let the first be a multiple of the second",
        )
    if not job.distributed and job.resources.nodes > 1:
        raise BadInput(
            f"{job.name} has no ranks that could work as a group on {job.resources.nodes} nodes",
            where=f"{job.asked}.nodes",
            remedy="set nodes: 1; data stages that can be divided take `parts`",
        )
    if job.resources.parts > 1 and not job.divisible:
        raise BadInput(
            f"{job.name} cannot be divided into parts",
            where=f"{job.asked}.parts",
            remedy="leave `parts` out: only stages that declare themselves divisible take it",
        )
