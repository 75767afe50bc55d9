"""The use cases: enroll, identify, verify, detect, embed. Gallery rules are applied here, once."""
