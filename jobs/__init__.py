"""What people press: jobs, a sensor and a schedule. `defs` is what Dagster loads from here."""

from jobs.definitions import active_recipe, definitions

defs = definitions(active_recipe())
