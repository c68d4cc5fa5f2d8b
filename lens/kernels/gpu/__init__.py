"""Triton kernels, one operation a file.  Imported by the operation that needs them, never by ``import lens``."""
