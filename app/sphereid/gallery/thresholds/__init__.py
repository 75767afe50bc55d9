"""From a promise to a threshold, and from candidates to decisions."""
