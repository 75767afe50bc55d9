"""Networks that others published, made into models that the service loads: `sphereid models install`."""
