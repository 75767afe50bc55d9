"""The console, driven through a real browser against a real server process."""
