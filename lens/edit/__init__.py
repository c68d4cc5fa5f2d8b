"""Editors: each takes a model and one request or several, and returns an ``Edit`` that has changed nothing yet.

forward pass        shift            one forward pass
gradient            sgd_step         one step of gradient descent
                    finetune         Adam on one matrix
"""

from lens.edit.branch import branches
from lens.edit.edit import Change, Edit
from lens.edit.finetune import finetune
from lens.edit.request import Request
from lens.edit.settings import settings
from lens.edit.shift import sgd_step, shift
from lens.edit.storage import load, save

__all__ = ["Change", "Edit", "Request", "branches", "finetune", "load", "save", "settings", "sgd_step", "shift"]
