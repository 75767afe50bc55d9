"""Work that takes minutes: kept on disk, done one after another, watched and stopped from outside."""
