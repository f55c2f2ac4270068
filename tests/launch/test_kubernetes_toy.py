"""A job on the stand-in cluster from its start to each of its ends, with a stage that needs no model."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import BadInput, StageFailed
from pipelines.lake import manifest
from pipelines.launch import kubernetes
from pipelines.launch.kubernetes import KubernetesLauncher
from pipelines.launch.spec import JobSpec, Report, Resources, Usage
from pipelines.launch.start import start_or_find
from tests.assets.toy_stage import ToySpec
from tests.launch.apiserver.cluster import FakeCluster
from tests.launch.conftest import messages

SMALL = Resources(cpus=1, memory="2Gi", scratch="1Gi", shared_memory="64Mi")


def job(folder: Path, resources: Resources = SMALL, **spec: Any) -> JobSpec:
    return JobSpec(
        "week-1/toy", "tests.assets.toy_stage", ToySpec(output=folder / "toy", **spec),
        resources=resources, fingerprint="f1",
    )  # fmt: skip


def test_a_job_makes_its_table_and_its_progress_and_log_are_seen(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    usage = KubernetesLauncher(cluster.settings()).run(job(tmp_path, seconds=1.0), reports.append)

    assert manifest.verify(tmp_path / "toy").rows == 8
    progress = [report for report in reports if report["kind"] == "progress"]
    assert progress[-1]["done"] == 10
    assert "loss" in progress[-1]["figures"]
    assert "data_version" in "".join(report["text"] for report in reports if report["kind"] == "log")
    assert "started the job vlm-week-1-toy-" in messages(reports)
    assert usage.attempts == 1
    assert usage.job.endswith("-a0")


def run_in_thread(cluster: FakeCluster, wanted: JobSpec, reports: list[Report], **settings: Any) -> Ended:
    return Ended(KubernetesLauncher(cluster.settings(**settings)), wanted, reports)


class Ended(threading.Thread):
    """A run in a thread, and how it ended."""

    def __init__(self, launcher: KubernetesLauncher, wanted: JobSpec, reports: list[Report]) -> None:
        super().__init__(daemon=True)
        self._launcher, self._wanted, self._reports = launcher, wanted, reports
        self.error: BaseException | None = None
        self.usage: Usage | None = None
        self.start()

    def run(self) -> None:
        try:
            self.usage = self._launcher.run(self._wanted, self._reports.append)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def wait(self) -> Ended:
        self.join(timeout=120)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self


def test_bad_input_is_told_in_its_own_words_and_never_tried_again(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    with pytest.raises(BadInput, match=r"column 'url' is missing[\s\S]*rename the column"):
        KubernetesLauncher(cluster.settings()).run(job(tmp_path, behaviour="bad input"), reports.append)
    assert len(cluster.created("Job")) == 1


def test_a_failure_of_the_stage_shows_its_last_lines_and_is_not_tried_again(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    with pytest.raises(StageFailed, match=r"pod 0: exit code 1[\s\S]*the machine is on fire"):
        KubernetesLauncher(cluster.settings()).run(job(tmp_path, behaviour="fail"), reports.append)
    assert len(cluster.created("Job")) == 1


def test_a_pod_that_dies_without_a_word_is_started_again_until_it_is_given_up(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    settings = cluster.settings(restarts_without_progress=1)
    with pytest.raises(StageFailed, match="without getting further; given up"):
        KubernetesLauncher(settings).run(job(tmp_path, behaviour="die"), reports.append)
    assert [body["metadata"]["name"][-3:] for body in cluster.created("Job")] == ["-a0", "-a1"]


def test_work_that_leaves_more_behind_each_time_gets_further_though_it_counts_no_steps(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that is disrupted each day goes on with its shards, and is not given up on the third."""
    left = iter([1, 2, 3])
    monkeypatch.setattr(kubernetes, "kept_files", lambda job: next(left, 3))
    settings = cluster.settings(restarts_without_progress=1)
    with pytest.raises(StageFailed, match=r"disrupted .*4 times, 1 times without getting further; given up"):
        KubernetesLauncher(settings).run(job(tmp_path, behaviour="die"), reports.append)


def test_a_lost_node_costs_a_restart_and_nothing_else(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    run = run_in_thread(cluster, job(tmp_path, seconds=3.0), reports)
    cluster.wait_for(lambda: any(report["kind"] == "progress" for report in reports), "progress")
    cluster.lose_node(0)
    assert run.wait().usage is not None
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert "all pods start again" in messages(reports)
    assert run.usage is not None and run.usage.attempts == 2


def test_a_pod_deleted_while_it_waits_for_a_node_is_made_again(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    cluster.kubelet.hold = True
    run = run_in_thread(cluster, job(tmp_path), reports)
    cluster.wait_for(lambda: "wait for a node: 0/4 nodes are available" in messages(reports), "the message")
    (pod,) = cluster.pods()
    cluster.controllers.delete("pods", "vlm", pod["metadata"]["name"])
    cluster.kubelet.hold = False
    run.wait()
    assert manifest.verify(tmp_path / "toy").rows == 8


def test_an_image_that_cannot_be_pulled_is_named_and_nothing_is_left_waiting(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    cluster.kubelet.images.clear()
    with pytest.raises(BadInput, match=r"cannot be pulled[\s\S]*registry.example/vlm/gpu@sha256"):
        KubernetesLauncher(cluster.settings()).run(job(tmp_path), reports.append)
    assert cluster.left() == []


def test_a_run_that_finds_a_job_whose_pods_never_ran_gives_it_up_as_its_maker_would(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    """The run that made it was killed meanwhile: nobody else would ever end it."""
    cluster.kubelet.images.clear()
    settings = cluster.settings()
    start_or_find(KubernetesLauncher(settings).api, settings, job(tmp_path))
    cluster.wait_for(lambda: [pod for pod in cluster.pods() if "startTime" in pod["status"]], "its node")
    with pytest.raises(BadInput, match="cannot be pulled"):
        KubernetesLauncher(settings).run(job(tmp_path), reports.append)
    assert "found the running job" in messages(reports)
    assert cluster.left() == []


def test_an_absent_secret_is_named_with_the_command_that_makes_it(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    settings = cluster.settings(secrets={"data": ["judge-key"]})
    with pytest.raises(
        BadInput, match=r"secret 'judge-key' does not exist[\s\S]*create secret generic judge-key"
    ):
        KubernetesLauncher(settings).run(job(tmp_path), reports.append)
    assert cluster.left() == []


def test_an_absent_volume_claim_is_named_and_not_waited_for_as_a_node_would_be(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    cluster.kubelet.hold = True
    cluster.kubelet.why_held = '0/4 nodes are available: persistentvolumeclaim "weights" not found.'
    with pytest.raises(BadInput, match=r"volume claim 'weights' does not exist[\s\S]*get pvc"):
        KubernetesLauncher(cluster.settings()).run(job(tmp_path), reports.append)
    assert cluster.left() == []


def test_a_queue_may_last_longer_than_any_timeout_and_says_why(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    cluster.add("LocalQueue", "localqueues", "a100")
    cluster.controllers.closed_queues.add("a100")
    # All patience is over long before the queue opens: waiting for a turn is no failure.
    settings = {"start_patience_seconds": 0.0, "patience_seconds": 0.5, "join_seconds": 1, "queue": "a100"}
    run = run_in_thread(cluster, job(tmp_path), reports, **settings)
    cluster.wait_for(
        lambda: "is queued in a100, place 1: couldn't assign flavors" in messages(reports), "the queue"
    )
    seen = cluster.api.requests["get jobs"]
    cluster.wait_for(lambda: cluster.api.requests["get jobs"] > seen + 20, "more looks at the job")
    assert cluster.controllers.pods_made == 0
    cluster.controllers.closed_queues.clear()
    usage = run.wait().usage
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert usage is not None and usage.attempts == 1


@pytest.mark.parametrize("unserved", [(), ("kueue.x-k8s.io/v1beta2", "visibility.kueue.x-k8s.io/v1beta2")])
def test_a_job_in_a_queue_says_its_place_and_the_place_moves_up(
    unserved: tuple[str, ...], cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    """Also where Kueue is too old for the newest version of its API."""
    cluster.api.unserved |= set(unserved)
    for queue in ("a100", "other"):
        cluster.add("LocalQueue", "localqueues", queue)
        cluster.controllers.closed_queues.add(queue)
    settings = cluster.settings(queue="a100")
    api = KubernetesLauncher(settings).api
    for name, queue in (("first", "a100"), ("elsewhere", "other")):
        before = replace(
            job(tmp_path), name=name, resources=Resources(**{**SMALL.model_dump(), "queue": queue})
        )
        ahead = start_or_find(api, settings, before)
        cluster.wait_for(lambda: ahead.name in str(cluster.store.list("workloads", "vlm")), "its turn")  # noqa: B023
        if queue == "a100":
            first = ahead

    run = run_in_thread(cluster, job(tmp_path), reports, queue="a100")

    cluster.wait_for(
        lambda: (
            "in a100, place 2 (3 of all queues that share its quota): couldn't assign" in messages(reports)
        ),
        "the place",
    )
    api.delete_job(first.name)
    cluster.wait_for(lambda: "in a100, place 1 (2 of all" in messages(reports), "the next place")
    cluster.controllers.closed_queues.clear()
    usage = run.wait().usage
    assert usage is not None and (usage.queue, usage.first_place) == ("a100", 2)
    places = [report["figures"] for report in reports if report["kind"] == "state" and report["figures"]]
    assert places == [{"place in the queue": 2}, {"place in the queue": 1}]


def test_a_cluster_that_does_not_show_places_is_waited_for_all_the_same(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    cluster.api.unserved |= {"visibility.kueue.x-k8s.io/v1beta1", "visibility.kueue.x-k8s.io/v1beta2"}
    cluster.add("LocalQueue", "localqueues", "a100")
    cluster.controllers.closed_queues.add("a100")
    run = run_in_thread(cluster, job(tmp_path), reports, queue="a100")
    cluster.wait_for(lambda: "is queued in a100: couldn't assign flavors" in messages(reports), "the queue")
    cluster.controllers.closed_queues.clear()
    usage = run.wait().usage
    assert usage is not None and usage.first_place is None


def test_bursts_of_errors_of_the_api_are_sat_out_and_launch_nothing_twice(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    # The answer to the creation is lost, too: the job is there, and must be recognised.
    launcher = KubernetesLauncher(cluster.settings())
    cluster.api.troubles = [429, 500, 0, 503]
    run = Ended(launcher, job(tmp_path, seconds=1.0), reports)
    cluster.wait_for(lambda: cluster.jobs(), "the job")
    cluster.api.late_troubles = [500, 0, 500]
    cluster.api.troubles = [500, 429, 0, 500, 503]
    run.wait()
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert {body["metadata"]["name"][-3:] for body in cluster.created("Job")} == {"-a0"}
    assert cluster.api.troubles == []


def test_a_creation_whose_answer_is_lost_is_found_and_not_repeated(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    launcher = KubernetesLauncher(cluster.settings())
    create = launcher.api.create_job

    def lose_the_answer(body: dict[str, Any]) -> dict[str, Any]:
        cluster.api.late_troubles = [500]
        return create(body)

    launcher.api.create_job = lose_the_answer  # type: ignore[method-assign]
    launcher.run(job(tmp_path), reports.append)
    assert len(cluster.created("Job")) == 1
    assert manifest.verify(tmp_path / "toy").rows == 8


def test_two_runs_of_the_same_work_launch_one_job_and_both_see_its_end(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    others: list[Report] = []
    wanted = job(tmp_path, seconds=2.0)
    runs = [
        Ended(KubernetesLauncher(cluster.settings()), replace(wanted, requested_by=who), seen)
        for who, seen in (("run-1", reports), ("run-2", others))
    ]
    for run in runs:
        run.wait()
    assert len(cluster.created("Job")) == 1
    assert "found the running job" in messages(reports) + messages(others)
    assert all(any(report["kind"] == "progress" for report in seen) for seen in (reports, others))


def test_a_run_that_is_cancelled_leaves_a_job_alone_for_which_another_waits(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    wanted = job(tmp_path, seconds=6.0)
    stays = Ended(KubernetesLauncher(cluster.settings()), replace(wanted, requested_by="stays"), reports)
    cluster.wait_for(lambda: any(report["kind"] == "progress" for report in reports), "progress")

    def stop(report: Report) -> None:
        others.append(report)
        if report["kind"] == "progress":
            raise KeyboardInterrupt

    others: list[Report] = []
    with pytest.raises(KeyboardInterrupt):
        KubernetesLauncher(cluster.settings()).run(replace(wanted, requested_by="goes"), stop)
    assert "goes on: another run waits for it" in messages(others)
    stays.wait()
    assert manifest.verify(tmp_path / "toy").rows == 8
    assert len(cluster.created("Job")) == 1


def test_a_cancelled_run_leaves_nothing_behind_though_an_earlier_one_died_with_it(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    """The note of a run that was killed is not renewed: it holds nobody up."""
    wanted = job(tmp_path, seconds=30.0)
    dead = KubernetesLauncher(cluster.settings())
    attempt = start_or_find(dead.api, dead.cluster, replace(wanted, requested_by="dead"))
    attempt.poll(lambda report: None)

    def stop(report: Report) -> None:
        if report["kind"] == "progress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KubernetesLauncher(cluster.settings()).run(replace(wanted, requested_by="cancelled"), stop)
    assert cluster.left() == []
    assert not cluster.kubelet.processes


def test_work_that_runs_with_another_image_is_not_taken_for_the_same(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    settings = cluster.settings()
    cluster.kubelet.hold = True
    start_or_find(KubernetesLauncher(settings).api, settings, job(tmp_path))
    other = cluster.settings(image="registry.example/vlm/gpu@sha256:" + "9" * 64)
    with pytest.raises(BadInput, match=r"with another image[\s\S]*kubectl -n vlm delete job vlm-week-1-toy"):
        KubernetesLauncher(other).run(job(tmp_path), reports.append)


def test_the_last_lines_come_from_the_pods_log_where_it_could_not_report(
    cluster: FakeCluster, tmp_path: Path, reports: list[Report]
) -> None:
    # The channel's folder cannot be made: what the pod says stands in its log alone.
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/_launch").write_text("in the way")
    with pytest.raises(StageFailed, match="the machine is on fire"):
        KubernetesLauncher(cluster.settings()).run(job(tmp_path, behaviour="fail"), reports.append)
    assert cluster.api.requests["get pods/log"]
