"""A training's end before its last step: any rank's wish, on which all ranks agree."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist


class Stop:
    """A wish of any rank to stop, on which all agree one step later, without a wait for a GPU."""

    requested = False

    def __init__(self) -> None:
        # A group of its own: the flag travels on the host, whatever the gradients travel on.
        self._group: Any = dist.new_group(backend="gloo")
        self._flag = torch.zeros(1)
        self._exchange: Any = None

    def agreed(self) -> bool:
        """Whether a rank had been asked to stop at the step before; all ranks call it once per step."""
        stopping = False
        if self._exchange is not None:
            self._exchange.wait()
            stopping = bool(self._flag.item())
        self._flag = torch.full((1,), float(self.requested))
        self._exchange = dist.all_reduce(self._flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return stopping


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """SIGTERM and SIGINT ask for a stop at the next step, where the state can be saved."""
    stop = Stop()

    def request(*_: object) -> None:
        stop.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
