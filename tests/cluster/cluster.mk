# A Kubernetes cluster with KServe for the tests; tests/cluster/README.md says what runs. TABSERVE_KUBECONFIG names another one.
TESTBED := $(PYTHON) -m tests.cluster.testbed
.PHONY: cluster-up cluster-down cluster-status images cluster-test cluster-test-long

cluster-up: .venv/ready ## bring up Kubernetes with KServe on this machine (root; prints KUBECONFIG)
	$(TESTBED) up

cluster-down: .venv/ready ## end it, and put the machine back to what it was
	$(TESTBED) down

cluster-status: .venv/ready ## what of the cluster is ready, and what lacks
	$(TESTBED) status

images: .venv/ready ## build both service images into the cluster
	$(TESTBED) images

cluster-test: images ## the tests that need the cluster; pytest's closing line comes last
	$(PYTHON) -m pytest tests/cluster -m "cluster and not long"

cluster-test-long: images ## those that wait for minutes by their nature
	$(PYTHON) -m pytest tests/cluster -m "cluster and long"
