"""The report: one page and one JSON document that state the experiment and show what came of it."""
