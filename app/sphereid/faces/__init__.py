"""Pixels to embeddings: decode, detect, align, embed. Knows no HTTP, no SQL, no FAISS and no torch."""
