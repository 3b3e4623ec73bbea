# The thin shell around the command `tollgate` (.venv/bin/tollgate --help). `make` alone prints the commands. Variables: DATA, MAPPING, CUT, FROM, TO, WEEK, RULES, NAME.
SHELL := /bin/bash
PY := .venv/bin/python
TOLLGATE := .venv/bin/tollgate
export TZ := UTC
export BENTOML_DO_NOT_TRACK := True

.DEFAULT_GOAL := help
.PHONY: help

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf "\n"

.PHONY: install
install:
	@embedded/setup.sh

##@ Everybody
.PHONY: demo test test-tutorials test-security audit-dependencies lint lock check-platforms mutants mutants-changed smoke up down example status screens docs figures
demo: install ## the whole loop, end to end (DATA= and MAPPING= for your own transactions)
	@$(TOLLGATE) demo $(if $(DATA),--data "$(DATA)" --mapping "$(MAPPING)") $(ARGS)
test: install ## every test: real Redis, Spark, service and broker
	@embedded/test_tools.sh
	@$(PY) -m pytest
test-tutorials: install ## every command of the tutorials, word for word, in a copy of this checkout (about 15 minutes)
	@TUTORIALS=all $(PY) -m pytest tests/embedded/test_tutorials.py
test-security: install ## what attempts to break it have found, held by tests: results/security.json
	@$(PY) -m tests.security -q
audit-dependencies: install ## known holes in the locked packages, from what the package index says
	@$(PY) -m embedded.audit_dependencies requirements/serving.txt requirements/jobs.txt requirements/dev.txt
lint: install ## style, types, and which room may import which
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports
lock: install ## write the locks anew: requirements/dev.txt, jobs.txt, serving.txt
	@requirements/lock.sh $(ARGS)
check-platforms: install ## ask whether every package has a wheel for Linux x86-64, Linux ARM64 and Apple silicon
	@requirements/check.sh
mutants: install ## change core code in small ways, and see whether a test notices: results/mutants.json
	@$(PY) -m benchmarks.mutants $(ARGS)
mutants-changed: install ## the same for what differs from BRANCH= (main), at most five minutes
	@$(PY) -m benchmarks.mutants --changed "$(or $(BRANCH),main)" --minutes 5 --least 0.8
smoke: install ## the lock on the other supported Python, and a look that it works
	@requirements/smoke.sh
up: install ## start Redis, the stream and the service, and leave them serving
	@$(TOLLGATE) up
down: install ## end what `make up` started
	@$(TOLLGATE) down
example: install ## a payment to try the service with: KIND=good or bad
	@$(TOLLGATE) example $(or $(KIND),good)
status: install ## the status page: results/status.html
	@$(TOLLGATE) status

screens: install ## docs/images from the pages in results/, with Chromium
	@$(TOLLGATE) screens

docs: install ## the documentation as a site: results/site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet && echo "open results/site/index.html"
figures: install ## docs/figures.md from what is in results/
	@$(TOLLGATE) figures

##@ Data engineer
.PHONY: synthetic import load apply cuts velocity materialize gates schedule
synthetic: install ## generate a synthetic dataset into .tollgate/datasets/synthetic
	@$(TOLLGATE) synthetic --out .tollgate/datasets/synthetic $(ARGS)
import: install ## map DATA onto the contract with MAPPING
	@$(TOLLGATE) import --data "$(DATA)" --mapping "$(MAPPING)" --out .tollgate/datasets/imported
load: install ## put a dataset's history before TO= into the lake
	@$(TOLLGATE) load --dataset "$(DATA)" --until "$(TO)"
apply: install ## register the feature definitions
	@$(TOLLGATE) feast apply
cuts: install ## Spark aggregates of every cut from FROM= to TO=
	@$(TOLLGATE) cuts --from "$(FROM)" --to "$(TO)"
velocity: install ## backfill the velocity log from FROM= to TO=
	@$(TOLLGATE) velocity --from "$(FROM)" --to "$(TO)"
materialize: install ## gate, aggregate, gate, materialize and check one CUT=
	@$(TOLLGATE) materialize --cut "$(CUT)"
schedule: install ## run the 6-hour and weekly jobs on this machine
	@$(TOLLGATE) schedule

##@ Operator
.PHONY: serve stream backtest-rules audit bench-serving bench-serving-stages bench-streaming bench-declared bench-machine bench-keyed chaos-serving chaos-streaming
serve: install ## the scoring service alone
	@$(TOLLGATE) serve
stream: install ## the velocity flow alone
	@$(TOLLGATE) stream
backtest-rules: install ## run RULES= over the decision log
	@$(TOLLGATE) backtest-rules $(if $(RULES),--rules "$(RULES)")
audit: install ## prove that the decision log is whole and unaltered
	@$(TOLLGATE) audit
bench-serving: install ## results/bench/serving.json
	@$(PY) -m benchmarks.serving
bench-serving-stages: install ## where a transaction's time goes, and docs/serving.md from both
	@$(PY) -m benchmarks.serving_stages
	@$(PY) -m benchmarks.serving_built
	@$(PY) -m benchmarks.serving_document
bench-streaming: install ## results/bench/streaming.json (DATA= and MAPPING= for the backfill's history)
	@$(PY) -m benchmarks.streaming $(if $(DATA),--data "$(DATA)") $(if $(MAPPING),--mapping "$(MAPPING)")
bench-declared: install ## own features: cost, bounds, and (BASE=, a checkout before) that standard ones are what they were
	@$(PY) -m benchmarks.declared $(if $(BASE),--base "$(BASE)")
	@$(PY) -m benchmarks.declared_document
two-hosts: install ## two scoring hosts on one home, each counts what was sent to it: results/two_hosts.json
	@$(PY) -m benchmarks.two_hosts
bench-machine: install ## what each part of machine/ is worth alone: results/bench/machine.json
	@$(PY) -m benchmarks.machine
bench-keyed: install ## what signatures cost in microseconds: results/bench/keyed.json
	@$(PY) -m benchmarks.keyed
chaos-serving: install ## results/chaos/serving.json
	@$(PY) -m benchmarks.chaos_serving
chaos-streaming: install ## results/chaos/streaming.json
	@$(PY) -m benchmarks.chaos_streaming

##@ Data scientist
.PHONY: training-set feature catalogue bench-gates bench-training-set cases kafka-day bench-cards bench-cuts
training-set: install ## point-in-time set from FROM= to TO= as known at CUT=
	@$(TOLLGATE) training-set --from "$(FROM)" --to "$(TO)" --as-of "$(CUT)" --out .tollgate/training/set
feature: install ## explain the feature NAME=
	@$(TOLLGATE) feature "$(NAME)"
catalogue: install ## write docs/features.md
	@$(TOLLGATE) catalogue
bench-gates: install ## results/bench/gates.json
	@$(PY) -m benchmarks.gates
bench-training-set: install ## results/bench/training_set.json
	@$(PY) -m benchmarks.training_set $(if $(DATA),--data "$(DATA)") $(if $(MAPPING),--mapping "$(MAPPING)")
cases: install ## results/cases.json: the inputs of FOLDER= through the doors
	@$(PY) -m benchmarks.cases "$(FOLDER)"
kafka-day: install ## results/kafka_day.json: a day through Apache Kafka, with kills
	@$(PY) -m benchmarks.apache_kafka
	@$(PY) -m benchmarks.kafka_day $(ARGS)
bench-cards: install ## results/bench/cards.json: card numbers told from ids
	@$(PY) -m benchmarks.cards $(ARGS)
bench-cuts: install ## results/bench/cuts.json
	@$(PY) -m benchmarks.cuts $(if $(DATA),--data "$(DATA)") $(if $(MAPPING),--mapping "$(MAPPING)")

##@ Model owner
.PHONY: train parity drift experiment-report bench-experiments bench-quality bench-missing bench-outage bench-models bench-drift
train: install ## train and save a model from .tollgate/training/set
	@$(TOLLGATE) train --dataset .tollgate/training/set
parity: install ## served vectors against a point-in-time rebuild
	@$(TOLLGATE) parity
drift: install ## the drift report of WEEK=
	@$(TOLLGATE) drift $(if $(WEEK),--week "$(WEEK)")
experiment-report: install ## champion against challenger on live, matured decisions
	@$(TOLLGATE) experiment-report
bench-experiments: install ## results/bench/experiments.json: right verdicts in simulated experiments
	@$(PY) -m benchmarks.experiments
bench-quality: install ## results/bench/quality.json
	@$(PY) -m benchmarks.quality $(if $(DATA),--data "$(DATA)")
bench-missing: install ## results/bench/missing.json: decisions without views, and on strangers
	@$(PY) -m benchmarks.missing
bench-outage: install ## results/bench/outage.json: Redis frozen for a minute at 300 requests a second
	@$(PY) -m benchmarks.outage
bench-models: install ## results/bench/models.json: kinds of models, their speed, size and precision
	@$(PY) -m benchmarks.models
bench-drift: install ## results/bench/drift.json
	@$(PY) -m benchmarks.drift
