"""Cameras that the service watches by itself, and whom it tells of those who come and go."""
