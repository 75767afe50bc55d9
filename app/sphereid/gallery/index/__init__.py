"""Nearest embeddings: one port, its FAISS adapters, and the NumPy oracle that tests hold them against."""
