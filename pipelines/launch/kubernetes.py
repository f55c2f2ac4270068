"""Launching on a cluster: the one place that decides whether a job is started, found, started again or given up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

from pipelines.errors import BadInput, StageFailed
from pipelines.launch import naming
from pipelines.launch.accounting import Account, kept_files
from pipelines.launch.api import Api
from pipelines.launch.attempt import Attempt
from pipelines.launch.cluster import Cluster
from pipelines.launch.estimate import estimate, hold_against_budget
from pipelines.launch.kueue import Kueue
from pipelines.launch.outcome import End
from pipelines.launch.possible import refuse_impossible
from pipelines.launch.refusals import Denied, Gone, NeverStarts, Unreachable
from pipelines.launch.spec import JobSpec, Report, Usage
from pipelines.launch.start import start_or_find

OnReport = Callable[[Report], None]
Say = Callable[[str], None]
T = TypeVar("T")


class KubernetesLauncher:
    """Runs a job as a group of pods, and lets it survive what clusters do.

    Pods that the cluster takes away are started again as a whole group and go on from their
    checkpoint. A run that is killed, or whose node is drained, leaves the job running; the next run with the same work finds
    it. A run that is cancelled ends it, unless another run waits for it too. Nothing that befalls the API, the account's
    rights or the storage ends a job that runs.
    """

    def __init__(self, cluster: Cluster, cancelled: Callable[[], bool] = lambda: False) -> None:
        """`cancelled`: whether somebody asked for the end of the run; asked when this process is told to stop, which has other
        reasons in a cluster."""
        self.cluster = cluster
        self._cancelled = cancelled
        self.api = Api(cluster)

    def run(self, job: JobSpec, on_report: OnReport) -> Usage:
        """Run `job` to its end; see `pipelines.launch.spec.Launcher` for what it raises."""
        self._check(job)
        account = Account(self.cluster, job)
        account.usage.queue = self.cluster.queue_of(job.resources) or ""
        try:
            if job.resources.parts > 1:
                self._to_the_end(job, on_report, account, parts=job.resources.parts)
            self._to_the_end(job, on_report, account, parts=1)
        finally:
            if account.usage.attempts:
                on_report(account.report())
        return account.usage

    def _check(self, job: JobSpec) -> None:
        """Refuse early what the cluster would refuse late, or never."""
        self.cluster.check_possible(job.resources, job.asked)
        refuse_impossible(job, self.cluster)
        hold_against_budget(
            [estimate(job.name, job.resources, last_seconds=None, reused=False)],
            self.cluster,
            self.cluster.budget if job.resources.hours is not None else None,
        )
        queue = self.cluster.queue_of(job.resources)
        if queue is not None and not Kueue(self.api).queue_exists(queue):
            raise BadInput(
                f"the queue {queue!r} does not exist in the namespace {self.cluster.namespace!r}",
                where=f"{job.asked}.queue, or the cluster's file: queue",
                remedy=f"`kubectl -n {self.cluster.namespace} get localqueues` lists them; k8s/overlays/kueue makes them",
            )

    def _to_the_end(self, job: JobSpec, on_report: OnReport, account: Account, parts: int) -> None:
        def say(words: str) -> None:
            on_report({"kind": "state", "stage": job.name, "text": words, "figures": {}})

        def observe(report: Report) -> None:
            account.see(report)
            on_report(report)

        least, ran = 0, False
        while True:
            number = least
            attempt = self._patiently(
                lambda: start_or_find(self.api, self.cluster, job, parts, number),  # noqa: B023 - called at once
                say,
            )
            attempt.ran = attempt.ran or ran
            account.begin(attempt.name)
            try:
                end = self._follow(attempt, observe, say)
            except NeverStarts:
                # Nothing of it shall be left waiting.
                self._discard(attempt, observe, say)
                raise
            except Denied as error:
                if not attempt.found and not attempt.seen:
                    self._discard(attempt, observe, say)
                    raise
                raise Denied(
                    f"{error.what}; {attempt.name} goes on without this run",
                    where=error.where,
                    remedy=f"{error.remedy}; then run it again: it finds the job",
                ) from None
            except Exception:
                # This program is wrong: the job goes on, and the next run finds it.
                raise
            except BaseException:
                self._stopped(job, attempt, observe, say)
                raise
            finally:
                account.end(attempt)
            if end is End.DONE:
                return
            if end is not End.DISRUPTED:
                _fail(job, attempt, end)
            self._prepare_restart(job, attempt, observe, say, account)
            least, ran = attempt.number + 1, attempt.ran

    def _patiently(self, do: Callable[[], T], say: Say) -> T:
        """Do it again for as long as the API is out of reach: nobody else looks after the job, and it does not need the API."""
        while True:
            try:
                return do()
            except Unreachable as error:
                say(
                    f"the cluster's API is out of reach ({error}); this run waits for it, and what runs there goes on"
                )
                time.sleep(self.cluster.poll_seconds)

    def _follow(self, attempt: Attempt, observe: OnReport, say: Say) -> End:
        say(
            f"found the running job {attempt.name}; follows it"
            if attempt.found
            else f"started the job {attempt.name}"
        )
        while (end := self._patiently(lambda: attempt.poll(observe), say)) is None:
            time.sleep(self.cluster.poll_seconds)
        return end

    def _discard(self, attempt: Attempt, observe: OnReport, say: Say) -> None:
        try:
            attempt.remove(observe)
        except (BadInput, Unreachable) as error:
            say(self._by_hand(attempt, error))

    def _by_hand(self, attempt: Attempt, error: Exception) -> str:
        kind, name = attempt.deletable
        return (
            f"could not stop {attempt.name}: {error}\n"
            f"stop it by hand: kubectl -n {self.cluster.namespace} delete {kind} {name}"
        )

    def _prepare_restart(
        self, job: JobSpec, attempt: Attempt, observe: OnReport, say: Say, account: Account,
    ) -> None:  # fmt: skip
        """Clear what is left, and wait a little.

        Raises:
            StageFailed: it was tried often enough.
        """
        # Those that were stopped because another pod went say nothing.
        reasons = sorted({pod.reason for pod in attempt.pod_ends() if pod.reason and pod.disrupted})
        why = f" ({', '.join(reasons)})" if reasons else ""
        account.left_for_the_next(kept_files(job))
        restarts = account.usage.attempts
        if restarts > self.cluster.restarts or account.fruitless >= max(
            self.cluster.restarts_without_progress, 1
        ):
            raise StageFailed(
                f"{job.name} was disrupted{why} {restarts} times, {account.fruitless} times without getting further; "
                f"given up\n{attempt.last_words()}"
            )
        if not self._patiently(lambda: attempt.remove(observe), say):
            say(f"some pods of {attempt.name} will not go (their node is gone?); starting again without them")
        pause = self.cluster.restart_seconds * min(2**account.fruitless, 16) * random.uniform(0.5, 1.5)
        say(
            f"{attempt.name} was disrupted{why}; all pods start again in {pause:.0f} s, from the last checkpoint"
        )
        time.sleep(pause)

    def _stopped(self, job: JobSpec, attempt: Attempt, observe: OnReport, say: Say) -> None:
        """This process was told to stop. If the run was cancelled: end the job and wait until its pods have saved and gone."""
        try:
            if not self._was_cancelled(job, attempt):
                say(
                    f"this run is stopped, and nobody cancelled it; {attempt.name} goes on, and the next run finds it"
                )
                return
            attempt.leave()
            if attempt.others_follow():
                say(f"{attempt.name} goes on: another run waits for it")
                return
            say(f"asked the pods of {attempt.name} to save and stop")
            gone = attempt.remove(observe)
            say(f"{attempt.name} is gone" if gone else f"pods of {attempt.name} are still stopping")
        except Exception as error:  # noqa: BLE001 - the run ends all the same
            say(self._by_hand(attempt, error))

    def _was_cancelled(self, job: JobSpec, attempt: Attempt) -> bool:
        """Whether the run shall end, or only this pod of it: its node is drained, scaled down or taken back.

        Cancelled, a run is marked so in Dagster, or its own Job is deleted. A run at a terminal has no Job, and means it.
        """
        if not attempt.in_cluster or self._cancelled():
            return True
        try:
            run = self.api.job(naming.run_job(job.requested_by))
        except Gone:
            return True
        return bool(run["metadata"].get("deletionTimestamp"))


def _fail(job: JobSpec, attempt: Attempt, end: End) -> NoReturn:
    words = attempt.last_words()
    if end is End.BAD_INPUT:
        said = next((e["text"] for e in attempt.ends.values() if e["code"] == 42), words)
        raise BadInput(
            said.removeprefix("error: "),
            where=f"job {attempt.name}",
            remedy="see above",
        )
    if end is End.DEADLINE:
        raise StageFailed(
            f"{job.name} was ended after {job.resources.deadline_hours:g} h; raise `deadline_hours` in the recipe's "
            f"resources: it goes on from its checkpoint\n{words}"
        )
    hint = ""
    if any(pod.reason == "OOMKilled" for pod in attempt.pod_ends()):
        hint = (
            f"; it ran out of memory: raise `memory` (now {job.resources.memory}) in the recipe's resources"
        )
    raise StageFailed(f"{job.name} failed in the job {attempt.name}{hint}\n{words}")
