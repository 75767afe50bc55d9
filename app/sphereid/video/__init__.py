"""Who is on screen when: frames, tracks, and what is drawn of them."""
