"""Groups of commands of ``python -m lens``: each module adds its own to the parser."""
