"""What exists: tables and models as Dagster assets; thin, they declare, launch and report."""
