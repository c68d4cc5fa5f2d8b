"""How are many runs made, on one machine or on many?  Jobs: in this process, or on the workers of a Dask cluster.

Every result is a file of its own, written whole by whoever called ``run``; a sweep that was stopped goes on with what
is missing, and a job that was stopped with its own last checkpoint.
"""

from lens.scale.sweep.connecting import local
from lens.scale.sweep.counterfact import counterfact_jobs, reports
from lens.scale.sweep.job import Job
from lens.scale.sweep.masks import mask_jobs
from lens.scale.sweep.models import opened
from lens.scale.sweep.results import Outcome, Results
from lens.scale.sweep.running import run

__all__ = ["Job", "Outcome", "Results", "counterfact_jobs", "local", "mask_jobs", "opened", "reports", "run"]
