.PHONY: release

release: .venv/ready ## a release of the last commit in DIST: BUILDER=docker BASE_IMAGE=NAME@sha256:…, ADVISORIES=all.zip
	rm -rf $(or $(DIST),dist)
	$(PYTHON) -m release --helm $(HELM) $(if $(BUILDER),--builder $(BUILDER) --base-image "$(BASE_IMAGE)") \
	  $(if $(ADVISORIES),--advisories $(ADVISORIES)) $(or $(DIST),dist)
