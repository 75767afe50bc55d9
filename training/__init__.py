"""Training of the SphereFace family: prepare, train, evaluate, export. Everything that needs torch lives
here."""
