"""Launching: one description of a job, run here or on a cluster, followed while it runs."""
