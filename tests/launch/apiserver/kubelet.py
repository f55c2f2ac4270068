"""Pods as processes of this machine, in a sandbox (bubblewrap) where there is one.

In the sandbox a pod has its host name, a user that is not root, a read-only root, its own process tree, and in /etc/hosts
the names of its group. Without it the names of volumes and hosts are replaced in the environment. In both, all
pods share the machine's network, so each group gets a port of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.launch.apiserver.store import Missing, Store, now

Manifest = dict[str, Any]
REPOSITORY = Path(__file__).parents[3]
UID_VARIABLE = "FAKE_POD_UID"
TICK = 0.05


@functools.cache
def sandbox() -> str | None:
    """The sandbox's program, if it is there and the kernel lets it work."""
    program = shutil.which("bwrap")
    if program is None or os.environ.get("POD_SANDBOX") == "off":
        return None
    trial = [program, "--unshare-user", "--unshare-pid", "--unshare-uts", "--ro-bind", "/", "/", "--proc", "/proc", "true"]  # fmt: skip
    return program if subprocess.run(trial, capture_output=True, check=False).returncode == 0 else None


class Kubelet:
    """Runs the pods of the store. What the test wants to go wrong is told through its attributes."""

    def __init__(self, store: Store, folder: Path, *, shared: Path) -> None:
        self.store = store
        self.folder = folder
        self.shared = shared
        """A folder that all pods can write: it stands for the object store."""
        self.images: set[str] = set()
        """Images that the registry has."""
        self.hold = False
        """No node is free."""
        self.why_held = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."
        self.cut_off: set[str] = set()
        """Pods, by uid, whose node does not answer: they are dead, and their objects stay as they were."""
        self.base_environment: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stop = threading.Event()

    def tick(self) -> None:
        """Give each new pod a thread."""
        for (kind, namespace, name), pod in self.store.everything():
            uid = pod["metadata"]["uid"]
            if kind == "pods" and uid not in self._threads:
                self._threads[uid] = threading.Thread(
                    target=self._run, args=(namespace, name, uid), daemon=True
                )
                self._threads[uid].start()

    def stop(self) -> None:
        self._stop.set()
        for uid in list(self.processes):
            kill_pod(uid)
        for thread in self._threads.values():
            thread.join(timeout=10)

    def log_path(self, uid: str) -> Path:
        return self.folder / uid / "log.txt"

    # One pod's life

    def _status(self, namespace: str, name: str, **status: Any) -> None:
        with contextlib.suppress(Missing):
            self.store.update("pods", namespace, name, lambda pod: pod["status"].update(status))

    def _container(self, namespace: str, name: str, state: Manifest, phase: str) -> None:
        pod = self.store.find("pods", namespace, name)
        if pod is None:
            return
        statuses = [
            {
                "name": container["name"], "image": container["image"], "imageID": container["image"],
                "ready": "running" in state, "restartCount": 0, "state": state,
            }
            for container in pod["spec"]["containers"]
        ]  # fmt: skip
        self._status(namespace, name, phase=phase, containerStatuses=statuses)

    def _deleted(self, namespace: str, name: str, uid: str) -> bool:
        pod = self.store.find("pods", namespace, name)
        return pod is None or pod["metadata"]["uid"] != uid or bool(pod["metadata"].get("deletionTimestamp"))

    def _run(self, namespace: str, name: str, uid: str) -> None:
        try:
            process = self._start(namespace, name, uid)
            if process is not None:
                self._watch(namespace, name, uid, process)
        finally:
            kill_pod(uid)
            self.processes.pop(uid, None)
        # Gone at once if it was deleted; else the ended pod stays until it is.
        while not self._stop.is_set():
            if uid in self.cut_off:
                time.sleep(TICK)
                continue
            pod = self.store.find("pods", namespace, name)
            if pod is None or pod["metadata"]["uid"] != uid:
                return
            if pod["metadata"].get("deletionTimestamp"):
                self.store.remove("pods", namespace, name)
                return
            time.sleep(TICK)

    def _start(self, namespace: str, name: str, uid: str) -> subprocess.Popen[bytes] | None:
        self._status(namespace, name, phase="Pending")
        while self.hold:
            unplaced = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": self.why_held,
            }
            self._status(namespace, name, conditions=[unplaced])
            if self._pause(namespace, name, uid):
                return None
        number = len(self._threads) % 4
        with contextlib.suppress(Missing):
            self.store.update(
                "pods", namespace, name, lambda pod: pod["spec"].update(nodeName=f"node-{number}")
            )
        # As a kubelet does: the pod has started when it is taken on, and its image is pulled after.
        scheduled = {"type": "PodScheduled", "status": "True"}
        self._status(namespace, name, conditions=[scheduled], startTime=now())
        while problem := self._problem(namespace, name):
            self._container(namespace, name, {"waiting": problem}, "Pending")
            if self._pause(namespace, name, uid):
                return None
        pod = self.store.find("pods", namespace, name)
        if pod is None or self._deleted(namespace, name, uid):
            return None
        process = self._popen(namespace, pod)
        self.processes[uid] = process
        self._container(namespace, name, {"running": {"startedAt": now()}}, "Running")
        return process

    def _pause(self, namespace: str, name: str, uid: str) -> bool:
        time.sleep(TICK)
        return self._stop.is_set() or self._deleted(namespace, name, uid)

    def _problem(self, namespace: str, name: str) -> Manifest | None:
        pod = self.store.find("pods", namespace, name)
        if pod is None:
            return None
        for container in pod["spec"]["containers"]:
            if container["image"] not in self.images:
                image = container["image"]
                message = f'Back-off pulling image "{image}": manifest unknown'
                return {"reason": "ImagePullBackOff", "message": message}
            names = [
                source["secretRef"]["name"]
                for source in container.get("envFrom") or []
                if "secretRef" in source and not source["secretRef"].get("optional")
            ]
            for entry in container.get("env") or []:
                if "secretKeyRef" in (entry.get("valueFrom") or {}):
                    names.append(entry["valueFrom"]["secretKeyRef"]["name"])
            for secret in names:
                if self.store.find("secrets", namespace, secret) is None:
                    return {"reason": "CreateContainerConfigError", "message": f'secret "{secret}" not found'}
        return None

    def _watch(self, namespace: str, name: str, uid: str, process: subprocess.Popen[bytes]) -> None:
        asked: float | None = None
        grace = 30.0
        while process.poll() is None:
            if self._stop.is_set():
                kill_pod(uid)
            pod = self.store.find("pods", namespace, name)
            if pod is None or pod["metadata"]["uid"] != uid:
                kill_pod(uid)  # its node is lost
            elif pod["metadata"].get("deletionTimestamp") and asked is None:
                asked = time.monotonic()
                grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
                for main in main_processes(uid, process):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        main.send_signal(signal.SIGTERM)
            elif asked is not None and time.monotonic() - asked > grace:
                kill_pod(uid)
            time.sleep(TICK)
        kill_pod(uid)
        if uid in self.cut_off:
            return
        code = process.returncode
        code = 128 - code if code < 0 else code
        reason = "Completed" if code == 0 else "Error"
        state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}}
        self._container(namespace, name, state, "Succeeded" if code == 0 else "Failed")

    # The process

    def _popen(self, namespace: str, pod: Manifest) -> subprocess.Popen[bytes]:
        uid = pod["metadata"]["uid"]
        folder = self.folder / uid
        folder.mkdir(parents=True)
        spec = pod["spec"]
        container = spec["containers"][0]
        environment = {**self._image_environment(), **self._environment(namespace, pod, container)}
        environment[UID_VARIABLE] = uid
        group = spec.get("subdomain", "")
        if "MASTER_PORT" in environment:
            environment["MASTER_PORT"] = str(self._ports.setdefault(group, free_port()))
        mounts = self._mounts(namespace, spec, container, folder)
        arguments = [expand(word, environment) for word in [*container.get("command", []), *container.get("args", [])]]  # fmt: skip
        if program := sandbox():
            arguments = self._sandboxed(program, pod, environment, mounts, folder, arguments)
        else:
            environment = without_sandbox(environment, mounts, group)
        with self.log_path(uid).open("wb") as log:
            return subprocess.Popen(
                arguments, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=folder if not sandbox() else None, start_new_session=True,
            )  # fmt: skip

    def _image_environment(self) -> dict[str, str]:
        """What the images themselves set."""
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONWARNINGS": "ignore",
            **self.base_environment,
        }

    def _environment(self, namespace: str, pod: Manifest, container: Manifest) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            kind, wanted = ("secrets", source["secretRef"]) if "secretRef" in source else ("configmaps", source["configMapRef"])  # fmt: skip
            name = wanted["name"]
            if wanted.get("optional") and self.store.find(kind, namespace, name) is None:
                continue
            found |= self.store.get(kind, namespace, name).get("data") or {}
        index = (pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-completion-index")
        if index is not None:
            found["JOB_COMPLETION_INDEX"] = index
        for entry in container.get("env") or []:
            if "value" in entry:
                found[entry["name"]] = expand(entry["value"], found)
            elif "fieldRef" in (entry.get("valueFrom") or {}):
                path = entry["valueFrom"]["fieldRef"]["fieldPath"]
                fields = {"metadata.name": pod["metadata"]["name"], "metadata.namespace": namespace}
                found[entry["name"]] = fields[path]
            elif "secretKeyRef" in (entry.get("valueFrom") or {}):
                wanted = entry["valueFrom"]["secretKeyRef"]
                found[entry["name"]] = self.store.get("secrets", namespace, wanted["name"])["data"][
                    wanted["key"]
                ]
        return found

    def _mounts(self, namespace: str, spec: Manifest, container: Manifest, folder: Path) -> dict[str, Path]:
        """Where each mount's content is on this machine."""
        volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
        made = {}
        for mount in container.get("volumeMounts") or []:
            volume = volumes[mount["name"]]
            place = folder / "volumes" / mount["name"]
            place.mkdir(parents=True, exist_ok=True)
            if "configMap" in volume:
                data = self.store.get("configmaps", namespace, volume["configMap"]["name"]).get("data") or {}
                for key, text in data.items():
                    (place / key).write_text(text)
            if "subPath" in mount:
                place = place / mount["subPath"]
            made[mount["mountPath"]] = place
        return made

    def _sandboxed(
        self, program: str, pod: Manifest, environment: dict[str, str], mounts: dict[str, Path],
        folder: Path, arguments: list[str],
    ) -> list[str]:  # fmt: skip
        spec = pod["spec"]
        user = str((spec.get("securityContext") or {}).get("runAsUser", 1000))
        host = spec.get("hostname") or pod["metadata"]["name"]
        words = [
            program,
            "--die-with-parent",
            "--unshare-user",
            "--unshare-pid",
            "--unshare-uts",
            "--unshare-ipc",
        ]
        words += ["--uid", user, "--gid", user, "--hostname", host[:63], "--tmpfs", "/"]
        for top in sorted(Path("/").iterdir()):
            if top.name in ("proc", "dev", "tmp", "sys", "run"):
                continue
            # Where a volume is mounted below it, a folder must take new names.
            if any(path.startswith(f"{top}/") for path in mounts) and not top.is_symlink():
                words += [word for child in sorted(top.iterdir()) for word in _bound(child)]
            else:
                words += _bound(top)
        words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        hosts = folder / "hosts"
        names = "".join(f"127.0.0.1 {name}\n" for name in self._peers(pod))
        hosts.write_text(f"127.0.0.1 localhost {host}\n{names}")
        words += ["--ro-bind", str(hosts), "/etc/hosts"]
        for path, place in mounts.items():
            if path != "/tmp":
                words += ["--bind", str(place), path]
        words += ["--bind", str(self.shared), str(self.shared), "--remount-ro", "/", "--chdir", "/"]
        return [*words, "--", *arguments]

    def _peers(self, pod: Manifest) -> list[str]:
        """Names that the group's Service gives its pods."""
        group, job = pod["spec"].get("subdomain", ""), pod["metadata"]["labels"].get("job-name", "")
        return [f"{job}-{index}.{group}" for index in range(16)] if group else []


def _bound(path: Path) -> list[str]:
    """The sandbox's words for a path of this machine that pods may read."""
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() or path.is_file() else []


def expand(text: str, environment: dict[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it; `$$` is a `$`."""

    def found(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)", found, text)


def without_sandbox(environment: dict[str, str], mounts: dict[str, Path], group: str) -> dict[str, str]:
    """The environment with the pod's own paths and host names replaced by this machine's."""
    found = {}
    for name, value in environment.items():
        for path, place in mounts.items():
            if value == path or value.startswith(path + "/"):
                value = str(place) + value[len(path) :]
        found[name] = (
            re.sub(rf"\b{re.escape(group)}(-main-0)?-\d+\.{re.escape(group)}\b", "127.0.0.1", value)
            if group
            else value
        )
    return found


def main_processes(uid: str, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Process 1 of the pod: below the sandbox's own two, if there is one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        outer = psutil.Process(process.pid)
        if sandbox() is None:
            return [outer]
        for _ in range(40):
            inner = outer.children()
            while inner and inner[0].name() == "bwrap":
                inner = inner[0].children()
            if inner:
                return inner[:1]
            time.sleep(TICK)
    return []


def kill_pod(uid: str) -> None:
    """Everything that runs in the pod, as the end of its control group would."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(UID_VARIABLE) == uid:
                process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
