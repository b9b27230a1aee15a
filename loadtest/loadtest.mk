# Load tests; loadtest/README.md says what they measure.
.PHONY: load cluster-load
REPORT ?= build/load

load: .venv/ready $(BUNDLE)/bundle.json ## load the services of the demo bundle here; the report goes to build/load
	.venv/bin/tabserve load run --up --bundle $(BUNDLE) --report $(REPORT) --title "tabserve up $(BUNDLE)"

cluster-load: images ## load the chart in the test cluster, and from inside it; the reports go to build/load
	$(PYTHON) -m pytest tests/loadtest -m cluster
	$(PYTHON) -m tests.loadtest.cluster $(REPORT)

$(BUNDLE)/bundle.json: .venv/ready
	$(PYTHON) examples/$(notdir $(BUNDLE))/train.py $(BUNDLE)
