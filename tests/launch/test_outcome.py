"""What follows from how pods ended: the one decision between starting again and giving up."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.launch.outcome import End, PodEnd, classify, failed_indexes


def job(reason: str, *, divided: bool = False, failed: str = "") -> dict[str, Any]:
    failure = {"type": "Failed", "status": "True", "reason": reason}
    spec = {"backoffLimitPerIndex": 3} if divided else {"backoffLimit": 0}
    return {
        "spec": spec,
        "status": {"conditions": [failure], **({"failedIndexes": failed} if failed else {})},
    }


def pod(code: int | None, index: int = 0, *, reason: str = "", disrupted: bool = False) -> PodEnd:
    return PodEnd(f"pod-{index}", index, code, reason, disrupted)


PREEMPTED = pod(143, 1, reason="PreemptionByScheduler", disrupted=True)
GROUP = job("BackoffLimitExceeded")
PARTS = job("MaxFailedIndexesExceeded", divided=True, failed="0,4-6")


@pytest.mark.parametrize(
    ("manifest", "pods", "end"),
    [
        (GROUP, [pod(1), pod(76, 1)], End.FAILED),
        (GROUP, [pod(1), PREEMPTED], End.DISRUPTED),
        (GROUP, [pod(42), PREEMPTED], End.BAD_INPUT),
        (GROUP, [pod(137, reason="OOMKilled"), pod(76, 1)], End.FAILED),
        (GROUP, [pod(137), pod(76, 1)], End.DISRUPTED),
        (GROUP, [pod(75), pod(143, 1), pod(0, 2)], End.DISRUPTED),
        (GROUP, [], End.DISRUPTED),
        (job("DeadlineExceeded"), [pod(143), PREEMPTED], End.DEADLINE),
        (None, [pod(1)], End.DISRUPTED),
        (None, [pod(42)], End.BAD_INPUT),
        # A part that was preempted was tried again by the cluster: what ended the job are the parts that it gave up.
        (PARTS, [pod(1), pod(1), PREEMPTED], End.FAILED),
        (PARTS, [pod(137), pod(137), pod(1, 3), pod(0, 3)], End.DISRUPTED),
        (PARTS, [pod(42, 5), PREEMPTED], End.BAD_INPUT),
    ],
)
def test_how_pods_ended_decides_what_follows(manifest: Any, pods: list[PodEnd], end: End) -> None:
    assert classify(manifest, pods) is end


def test_the_parts_that_were_given_up_are_read_from_the_status() -> None:
    assert failed_indexes(PARTS) == {0, 4, 5, 6}
    assert failed_indexes(GROUP) == set()
