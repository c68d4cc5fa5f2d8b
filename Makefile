# Two commands do everything: `make book` and `make test`. They need Python 3.10 to 3.13 and git.
# Recipes use relative paths only, so the folder may be called anything.
SHELL := /bin/sh
PYTHON ?=
export PYTHON

.PHONY: help book lab pdf test test-fast course bundle slides clean address env

help:  ## show this list
	@echo "make book     set up .venv, run every chapter on the built-in model, build the HTML book"
	@echo "              MODEL=smollm2-135m: an edition on another model, beside it"
	@echo "make lab      set up .venv, write the chapters without solutions to notebooks/, open them in JupyterLab"
	@echo "make pdf      the same, then print it all into book/_build/book.pdf (needs Chromium)"
	@echo "make test     set up .venv, run the tests in two processes; CI=1: also the longest, on chapters that run anew"
	@echo "make test-fast  the part of it to run before every commit: nothing slow, no trained model"
	@echo "make course   set up .venv, make the folder course/: assignments for nbgrader, notebooks for Colab and for you"
	@echo "make bundle   a folder and a zip to upload to Colab or elsewhere, where there is no public address"
	@echo "make slides   the book, then one lecture from it: slides that work offline, and a PDF of them"
	@echo "make address  URL=https://github.com/you/your-fork: change the book's public address everywhere"
	@echo "make clean    remove the built book and the cache of executed chapters (keeps .venv)"
	@echo "make help     this list"
	@echo "Choose a Python with PYTHON=/path/to/python3; pip's own settings (PIP_...) are passed on."

# Uses $PYTHON if it is given, else the first interpreter found that is new enough.
env:
	@for python in "$${PYTHON:-python3.13}" python3.12 python3.11 python3.10 python3 python; do \
	  if [ -n "$$PYTHON" ] || "$$python" book/setup_env.py --suits 2>/dev/null; then \
	    "$$python" -c "" 2>/dev/null || { echo "lens: $$python is no working Python; give PYTHON= the path of a Python 3.10 to 3.13." >&2; exit 1; }; \
	    exec "$$python" book/setup_env.py; \
	  fi; \
	done; \
	echo "lens: no Python 3.10 to 3.13 was found; install one, or name it: make book PYTHON=/path/to/python3." >&2; exit 1

book: env
	@.venv/bin/python book/build.py $(if $(filter command,$(firstword $(origin MODEL))),--model $(MODEL))

lab: env
	@.venv/bin/python book/lab.py

pdf: book
	@.venv/bin/python book/pdf.py

test: env
	@.venv/bin/python -m pytest -n 2 --durations=10 $(if $(CI),,-m "not long")

test-fast: env
	@.venv/bin/python -m pytest -n 2 --durations=10 --fast

course: env
	@.venv/bin/python book/course.py

bundle: env
	@.venv/bin/python book/bundle.py

slides: book
	@.venv/bin/python book/slides.py

address:
	@for python in "$${PYTHON:-python3}" python python3.13 python3.12 python3.11 python3.10; do \
	  "$$python" -c "" 2>/dev/null && exec "$$python" book/address.py "$(URL)"; \
	done; \
	echo "lens: no Python was found; install Python 3.10 to 3.13." >&2; exit 1

clean:
	@rm -rf book/_build .pytest_cache .hypothesis
	@echo "Removed the built book. The environment stays; remove it with: rm -rf .venv"
