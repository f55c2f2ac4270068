"""Translation of captions into a crawl's target languages, with a guard over every output."""
