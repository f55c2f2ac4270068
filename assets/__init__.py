"""What exists: the tables and models of the factory as Dagster assets; thin, they declare, launch and report."""
