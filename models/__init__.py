"""The networks, and where their weights come from. Knows nothing of files of data, stages or Dagster."""
