"""The work: every stage of the factory as plain Python, without Dagster.

Each stage is a package that runs alone, `python -m pipelines.<stage> SPEC`, and
is launched by the assets in exactly the same way. `python -m pipelines` lists them.
"""
