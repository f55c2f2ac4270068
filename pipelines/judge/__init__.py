"""Judging free answers: by a language model behind a server, or by their overlap with a reference, which is named so."""
