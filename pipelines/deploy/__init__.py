"""Deployment: the cluster's manifests from `k8s/`, checked, without a tool that has to be installed first."""
