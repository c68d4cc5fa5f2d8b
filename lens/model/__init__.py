"""What is a language model to this book, how is it opened, and how is it run?"""

from lens.model.language_model import LanguageModel, Tokens
from lens.model.loading import load
from lens.model.weights import Weights

__all__ = ["LanguageModel", "Tokens", "Weights", "load"]
