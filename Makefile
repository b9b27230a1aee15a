# `make help` lists the targets. Everything is installed into .venv, from requirements.lock, checked against its hashes.
include venv.mk
PYTHON := .venv/bin/python
UV := .venv/bin/uv
BUNDLE ?= bundles/breast_cancer

.DEFAULT_GOAL := help
.PHONY: help demo demo-lifecycle quick test test-long long-models long-score long-log long-replay long-monitor long-stream long-spark long-oncall long-request long-redis long-contract long-compatible long-signature long-release long-tutorial long-page long-onedal long-rollout-simulate models lint format lock proto clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 22

demo: .venv/ready ## train breast_cancer, serve it, print a decision; CHECK=1 stops after the decision
	$(PYTHON) examples/breast_cancer/train.py $(BUNDLE)
	.venv/bin/tabserve up $(BUNDLE) $(if $(CHECK),--check)

demo-lifecycle: .venv/ready ## payments change in week 3: serve, log, monitor, retrain, serve that; reports and cards in lifecycle/
	$(PYTHON) -m examples.payments.lifecycle $(or $(FOLDER),lifecycle)

# Without tests that train or load many models, or start services.
SECONDS := $(filter-out $(foreach slow,bundle_% card cli codec_fuzz engines_% examples imports monitor page rollout_services score scorer telemetry tracing train_% \
  transformer_faults transformer_process,tests/unit/test_$(slow).py),$(wildcard tests/unit/test_*.py))
QUICK := $(if $(filter $(PYTHON3),$(OLDEST)),.venv,.venv-oldest)
quick: $(QUICK)/ready ## the tests that take seconds, on the oldest Python there is
	$(QUICK)/bin/python -m pytest -q $(SECONDS)

test: lint ## everything that needs no cluster; pytest's closing line comes last
	$(PYTHON) -m pytest -n 3 --dist loadfile -m "not cluster and not long and not alone"
	$(PYTHON) -m pytest -m "alone and not cluster and not long"

test-long: .venv/ready ## tests that take minutes, or need a machine with nothing else to do
	@ls /usr/lib/*/faketime/libfaketime.so.1 > /dev/null 2>&1 || apt-get install -y -q --no-install-recommends libfaketime
	$(PYTHON) -m pytest -m "long and not cluster"

long-models: .venv/ready ## every model of docs/models.md, compared with its own library
	$(PYTHON) -m pytest -q -m long tests/models

long-score: .venv/ready ## tabserve score in earnest: millions of rows, kills, an object store that fails
	$(PYTHON) -m pytest -q -s -m long tests/data/test_score_long.py

long-log: .venv/ready ## the decision log under attack, and half an hour of memory; MINUTES=2 for less
	MINUTES=$(or $(MINUTES),30) $(PYTHON) -m pytest -q -s -m long tests/data/test_decision_log_long.py

long-replay: .venv/ready ## 100,000 logged decisions of two releases, made again; one bit, field and bundle altered
	$(PYTHON) -m pytest -q -s -m long tests/data/test_replay_long.py

long-monitor: .venv/ready ## tabserve monitor in earnest: a thousand years without a change, ten million records
	$(PYTHON) -m pytest -q -s -m long tests/data/test_monitor_long.py

long-stream: .venv/ready ## tabserve stream and the log in Kafka on a real broker, which Maven downloads: kills, rebalances, outages
	$(PYTHON) -m pytest -q -s -m long tests/data/test_stream_long.py tests/data/test_kafka_log_long.py

long-spark: .venv-spark/ready ## tabserve.spark on Spark, which it installs with Debian's Java: workers killed, and as tabserve score; asks a package index
	command -v java > /dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends openjdk-17-jre-headless; }
	.venv-spark/bin/python -m pytest -q -s -m long tests/data/test_spark_long.py

long-oncall: .venv/ready ## each graph of the chart's dashboard, and an alert, in a real Prometheus that scrapes real services
	$(PYTHON) -m pytest -q -s -m long tests/chart/test_oncall_long.py

long-request: .venv/ready ## tabserve request on 100,000 records, with one request under way and with 16
	$(PYTHON) -m pytest -q -s -m long tests/data/test_request_long.py

long-redis: .venv/ready ## the hook of examples/redis on Debian's Redis, which it installs
	command -v redis-server > /dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends redis-server; }
	$(PYTHON) -m pytest -q -m long tests/kserve/test_redis_long.py

long-contract: .venv/ready ## requests and clients made from the contract: schemathesis, OpenAPI, Go, grpcurl
	$(PYTHON) -m pytest -q -s -m long tests/clients/test_generated.py

long-compatible: .venv/ready ## the setting compatible, compared with KServe's and MLServer's servers, which it installs
	$(PYTHON) -m pytest -q -s -m long tests/clients/test_compatible_long.py

long-signature: .venv/ready ## signatures of bundles, compared with OpenSSF's model-signing, which it installs
	$(PYTHON) -m pytest -q -s -m long tests/data/test_signature_long.py

long-release: .venv/ready ## a release made twice: the same wheel and chart
	$(PYTHON) -m pytest -q -s -m long tests/data/test_release_long.py

long-tutorial: .venv/ready ## docs/tutorial.md in a new environment, and which systems the extras resolve on; asks a package index
	$(PYTHON) -m pytest -q -s -m long tests/docs

long-rollout-simulate: .venv/ready ## false rollbacks and detection of worse canaries, in a thousand simulated rollouts each
	$(PYTHON) -m pytest -q -s -m long tests/rollout/test_simulate_long.py

long-page: .venv-browser/ready ## the page in Debian's Chromium, which it installs; writes docs/pictures again
	command -v chromium > /dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }
	PICTURES=docs/pictures .venv-browser/bin/python -m pytest -q -s -m long tests/browser

# What .venv has, and Playwright, without the browsers that it would download.
.venv-browser/ready: .venv/ready tests/browser/playwright.lock
	$(PYTHON) -m venv --clear --without-pip $(@D)
	echo "import site; site.addsitedir('$$(realpath .venv/lib/python3.*/site-packages)')" \
	  > $$(echo $(@D)/lib/python3.*/site-packages)/tabserve.pth
	$(UV) pip install -q --python $(@D)/bin/python --require-hashes -r tests/browser/playwright.lock
	touch $@

long-onedal: .venv-onedal/ready ## models in oneDAL, in an environment that has the extra; asks a package index
	.venv-onedal/bin/python -m pytest -q -s tests/unit/test_engines_onedal.py

# What .venv has, and an extra that is large.
.venv-onedal/ready: LARGE := $(ONEDAL)
.venv-spark/ready: LARGE := $(SPARK)
.venv-onedal/ready .venv-spark/ready: .venv/ready
	$(PYTHON) -m venv --clear --without-pip $(@D)
	echo "import site; site.addsitedir('$$(realpath .venv/lib/python3.*/site-packages)')" \
	  > $$(echo $(@D)/lib/python3.*/site-packages)/tabserve.pth
	sed -n '$(LARGE)p' requirements.lock > $(@D)/large.txt
	$(UV) pip install -q --python $(@D)/bin/python --no-deps --require-hashes -r $(@D)/large.txt
	touch $@

models: .venv/ready ## write docs/models.md and its table again; OF=Ridge walks only some models
	$(PYTHON) -m tests.models $(OF)

lint: .venv/ready ## ruff, mypy --strict, import contracts
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

format: .venv/ready ## let ruff format the code
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lock: .venv/ready ## resolve pyproject.toml again into requirements.lock; pins stay as they are, UPGRADE=1 moves them all
	$(UV) pip compile pyproject.toml --universal --all-extras --group dev --group bench --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) -q -o requirements.lock
	$(UV) pip compile tests/data/model-signing.in --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) -q -o tests/data/model-signing.lock
	$(UV) pip compile tests/browser/playwright.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) -q -o tests/browser/playwright.lock

# In a pool of their own, so that a process may also load another project's copy (KServe's SDK, Triton's client).
PROTO := tabserve/inference/grpc/open_inference
proto: .venv/ready ## generate the gRPC messages again
	$(PYTHON) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. $(PROTO).proto
	sed -i 's/_descriptor_pool.Default()/_descriptor_pool.DescriptorPool()/' $(PROTO)_pb2.py

clean: ## remove what the other targets made, except the cluster
	rm -rf .venv .venv-oldest .venv-onedal .venv-spark .venv-browser bundles .mypy_cache .pytest_cache .ruff_cache *.egg-info build

-include website/website.mk charts/chart.mk release/release.mk benchmarks/bench.mk loadtest/loadtest.mk tests/cluster/cluster.mk
