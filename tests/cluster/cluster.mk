# A Kubernetes cluster with KServe for the tests; tests/cluster/README.md says what runs. TABSERVE_KUBECONFIG names another.
TESTBED := $(PYTHON) -m tests.cluster.testbed
.PHONY: cluster-up cluster-down cluster-status images cluster-test cluster-test-long long-rollout

cluster-up: .venv/ready ## bring up Kubernetes with KServe on this machine (root; prints KUBECONFIG); ADD=network-policy enforces that
	$(TESTBED) up $(addprefix --add ,$(ADD))

cluster-down: .venv/ready ## end it, and restore the machine
	$(TESTBED) down

cluster-status: .venv/ready ## what is ready in the cluster, and what is missing
	$(TESTBED) status

images: .venv/ready ## build both service images into the cluster
	$(TESTBED) images

cluster-test: images ## the tests that need the cluster; pytest's closing line comes last
	$(PYTHON) -m pytest tests/cluster -m "cluster and not long"

cluster-test-long: images ## tests that have to wait for minutes
	$(PYTHON) -m pytest tests/cluster -m "cluster and long" -k "not rollout"

# Two at a time, and alone where milliseconds decide.
long-rollout: images ## rollouts with a gate under load: promoted, taken back, lost, disturbed; an hour, of which MINUTES=30 with equal releases
	$(PYTHON) -m pytest -q -rP -n 2 --dist worksteal tests/cluster/test_rollout_*.py -k "not hangs and not slower" -m "cluster and long"
	$(PYTHON) -m pytest -q -s tests/cluster/test_rollout_*.py -k "hangs or slower" -m "cluster and long"
