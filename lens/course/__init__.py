"""What do only the book's readers touch?  A chapter's setup, its explorers, and the checks of its exercises."""
