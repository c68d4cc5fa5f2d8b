"""How were the built-in models made?  Their tokenizer, their training, and the measurements on their cards."""
