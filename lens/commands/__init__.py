"""What can be typed after ``python -m lens``?  Each module adds its own commands to the parser."""
