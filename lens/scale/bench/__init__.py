"""How fast is it, and against what?  ``python -m lens bench lens`` and ``python -m lens bench kernels``."""
