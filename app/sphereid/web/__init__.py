"""The console in the browser: static files, and the headers that keep them strict."""
