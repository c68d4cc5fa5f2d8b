"""How does one of the book's programs end? With a line that says what was made, or one that says what to do."""
import sys


def end(work, *refusals):
    """Print what `work()` returns; 0, or 1 where it raises one of `refusals`, whose words are written for people."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a code page may lack a letter of a path
    try:
        print(work())
    except refusals as error:
        print(f"lens: {error}", file=sys.stderr)
        return 1
    return 0
