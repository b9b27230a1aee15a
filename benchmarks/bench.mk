# Compare tabserve with other servers (benchmarks/README.md). Peers are installed from their locks into the user's cache.
.PHONY: bench bench-quick bench-check bench-lock soak sizing

bench: .venv/ready ## compare tabserve with other servers, into benchmarks/results
	$(PYTHON) -m benchmarks full

bench-quick: .venv/ready ## the same in minutes: one row per request, with FastAPI, KServe and a no-op
	$(PYTHON) -m benchmarks quick

soak: .venv/ready ## an hour at half capacity: memory, descriptors and p99 must not grow
	$(PYTHON) -m benchmarks soak

bench-check: ## test the load generator
	go -C benchmarks/generator vet ./...
	go -C benchmarks/generator test ./...

bench-lock: .venv/ready ## resolve benchmarks/peers/*.in again into their locks
	for peer in fastapi kserve mlserver noop; do \
	  $(UV) pip compile benchmarks/peers/$$peer.in --override benchmarks/peers/overrides.txt --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make bench-lock" --upgrade -q \
	    -o benchmarks/peers/$$peer.lock; \
	done

sizing: .venv/ready ## write the tables of docs/operations.md again, from the chart and benchmarks/results/footprint
	$(PYTHON) -m tests.chart.sizing
