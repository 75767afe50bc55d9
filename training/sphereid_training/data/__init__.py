"""From image files to batches: the packed store, the sampler and the augmentation."""
