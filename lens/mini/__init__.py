"""How the built-in model was made: its corpus, its tokenizer, its training, and the measurements on its card."""
