"""Work on whole galleries: photographs and files in, files out, another model's embeddings."""
