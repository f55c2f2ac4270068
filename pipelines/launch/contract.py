"""What a pod finds in its environment: the contract between the client and the worker in the pod."""

from __future__ import annotations

MODULE_VARIABLE = "STAGE_MODULE"
SPEC_VARIABLE = "STAGE_SPEC"
"""The spec document, JSON."""
CHANNEL_VARIABLE = "STAGE_CHANNEL"
"""URL of the folder to which the attempt's pods write progress and logs."""
ATTEMPT_VARIABLE = "STAGE_ATTEMPT"
SCRATCH_VARIABLE = "STAGE_SCRATCH"
NODES_VARIABLE = "STAGE_NODES"
RANKS_VARIABLE = "STAGE_RANKS"
"""Ranks of each node; not set where a stage has none."""
PARTS_VARIABLE = "STAGE_PARTS"
"""Parts into which a data stage is divided; the pod's completion index says which one it does."""
JOIN_VARIABLE = "STAGE_JOIN_SECONDS"
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes: which pod of the Job this is."""

MAX_SPEC_BYTES = 100_000
"""Linux takes 128 KiB in one environment variable."""

PEER_LOST_EXIT_CODE = 76
"""The worker ended because another node of its group was lost: not a fault of the stage."""
