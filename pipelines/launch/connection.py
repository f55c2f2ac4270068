"""How the cluster's API is reached: a pod's own account, or a kubeconfig."""

from __future__ import annotations

import os
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from pipelines.errors import BadInput
from pipelines.launch.cluster import Cluster


def connection(cluster: Cluster) -> tuple[str, Any]:
    """How to reach the API, and where that was found.

    Raises:
        BadInput: there is no usable kubeconfig, or it lacks the context.
    """
    configuration = client.Configuration()
    named = cluster.kubeconfig or cluster.context
    try:
        if not named:
            try:
                config.load_incluster_config(client_configuration=configuration)
                return "the pod's service account", configuration
            except ConfigException:
                pass
        path = None if cluster.kubeconfig is None else str(cluster.kubeconfig)
        config.load_kube_config(path, context=cluster.context, client_configuration=configuration)
    except (ConfigException, yaml.YAMLError, TypeError, ValueError, AttributeError, OSError) as error:
        raise BadInput(
            f"there is no usable kubeconfig: {error}",
            where=str(cluster.kubeconfig or "KUBECONFIG, or ~/.kube/config"),
            remedy="name an existing file and context in the cluster's file (`kubeconfig`, `context`); "
            "`kubectl config get-contexts` lists them",
        ) from None
    return (
        f"kubeconfig {cluster.kubeconfig or os.environ.get('KUBECONFIG') or '~/.kube/config'}",
        configuration,
    )
