"""Embeddings to decisions, and their storage. Knows no HTTP, no pixels and no torch."""
