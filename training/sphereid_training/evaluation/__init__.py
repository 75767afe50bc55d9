"""Verification, open-set and identification protocols, each on plain arrays of embeddings or scores."""
