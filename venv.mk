# Choose the Python, and make the venvs. PYTHON3 names another Python.

# The Pythons that run and that requirements.lock supports, newest first; also pyenv's, whose shims run only if switched on.
PYTHONS := $(shell for minor in 13 12 11; do \
  for p in python3.$$minor python3 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.$$minor.*[0-9]/bin/python3.$$minor; do \
  $$p -c "import sys; sys.exit(sys.version_info[:2] != (3, $$minor))" 2>/dev/null && echo $$p && break; done; done)
PYTHON3 ?= $(firstword $(PYTHONS))
OLDEST ?= $(lastword $(PYTHONS))
# `again` if a venv has another minor version than its Python.
other = $(if $(wildcard $(1)/lib/python$(shell $(or $(2),:) -c 'import sys; print("%d.%d" % sys.version_info[:2])')),,again)
.PHONY: again
# Where two extras and what only they need are in requirements.lock: 160 and 400 MB that only `make long-onedal` and `long-spark` install.
ONEDAL := /^\(daal\|scikit-learn-intelex\|tbb\|tcmlib\)==/,/[0-9a-f]$$/
SPARK := /^\(py4j\|pyspark\)==/,/[0-9a-f]$$/

.venv/ready: $(call other,.venv,$(PYTHON3))
.venv-oldest/ready: $(call other,.venv-oldest,$(OLDEST))
.venv-oldest/ready: PYTHON3 := $(OLDEST)
.venv/ready .venv-oldest/ready: requirements.lock pyproject.toml
	$(if $(PYTHON3),,$(error expected a Python of 3.11 to 3.13, found none))
	$(PYTHON3) -m venv --clear $(@D) || \
	  { apt-get update -q && apt-get install -qy python3-venv && $(PYTHON3) -m venv --clear $(@D); }
	sed -n '/^uv==/,/[0-9a-f]$$/p' requirements.lock > $(@D)/uv.txt
	$(@D)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $(@D)/uv.txt
	sed -e '$(ONEDAL)d' -e '$(SPARK)d' requirements.lock > $(@D)/all.txt
	$(@D)/bin/uv pip sync -q --python $(@D)/bin/python --require-hashes $(@D)/all.txt
	$(@D)/bin/uv pip install -q --python $(@D)/bin/python --no-deps --no-build-isolation --editable .
	touch $@
