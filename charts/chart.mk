CHART := charts/tabserve
HELM ?= $(shell $(PYTHON) -c 'from tests.cluster.testbed.build import HELM3; HELM3.make(); print(HELM3.folder / "helm")')

.PHONY: chart-docs chart-lint manifests

chart-docs: .venv/ready ## write the chart's schema and the table in its README from values.yaml, and its dashboard
	$(PYTHON) -m charts.documentation
	$(PYTHON) -m charts.dashboard

chart-lint: .venv/ready ## helm lint, with each of the chart's ci/*-values.yaml
	@for values in $(CHART)/ci/*-values.yaml; do $(HELM) lint --strict $(CHART) --values $$values || exit 1; done

manifests: .venv/ready ## render manifests/base from the chart
	$(PYTHON) -m charts.manifests $(HELM)
