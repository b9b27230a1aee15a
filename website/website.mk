# The docs as a site, built by Zensical in an environment of its own.
.PHONY: docs docs-causes docs-lock

docs: .venv/ready build/website-venv/ready ## the docs as a site in build/website/site; strict; SOURCE=URL links to the repository's files
	PATH=$(CURDIR)/build/website-venv/bin:$$PATH $(PYTHON) -m website build/website $(if $(SOURCE),--source $(SOURCE))

build/website-venv/ready: website/requirements.lock .venv/ready
	$(PYTHON) -m venv --clear --without-pip $(@D)
	$(UV) pip sync -q --python $(@D)/bin/python --require-hashes website/requirements.lock
	touch $@

docs-causes: .venv/ready ## write the table of docs/troubleshooting.md from tabserve/doctor/causes.py
	$(PYTHON) -m website.causes

docs-lock: .venv/ready ## resolve website/requirements.in again into its lock
	$(UV) pip compile website/requirements.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command "make docs-lock" $(if $(UPGRADE),--upgrade) -q -o website/requirements.lock
