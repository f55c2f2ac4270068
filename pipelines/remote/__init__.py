"""Language models behind any OpenAI-compatible server: asked once, kept, retried where that can help, within a budget."""
