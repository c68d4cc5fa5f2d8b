"""How is a result kept?  In a whole file, with what made it, and as a table to be read."""
