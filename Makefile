# `make demo` and `make test` each set everything up by themselves; `make help` lists the rest.

PYTHON ?= python3
EXTRA ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
BIN := .venv/bin
STAMP := .venv/.installed
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed
DOCS_STAMP := .venv/.docs
WORLD := runs/world
POSTS := $(WORLD)/both
DEMO := runs/demo
SHARED ?= ../shared
NEEDED := import sys; sys.exit(sys.version_info < (3, 11))
FREE_PORT := import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test tests odd docs lint format clean check-graphs check-vllm
.PHONY: table-harm-c table-reasoning table-mmsd2 table-miko

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEEDED)' || { \
	  echo "miko_clf needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1);"; \
	  echo "name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "== making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { \
	  echo "the venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "== installing uv, which installs the rest"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@echo "== installing miko_clf[train,distil,serve,ocr,report,explain,sweep,$(EXTRA),dev]: about 6 GB, a few minutes"
	@$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt \
	  -e '.[train,distil,serve,ocr,report,explain,sweep,$(EXTRA),dev]'
	@touch $@

demo: $(STAMP)  ## train on the demo world, compare, export, serve and ask
	@echo "== writing the demo world to $(WORLD)"
	@$(BIN)/python -m miko_clf world $(WORLD)
	@echo "== training models/tiny.yaml to tell sarcasm and harm: a few minutes; once stopped, make demo goes on"
	@$(BIN)/python train.py models/tiny.yaml --data $(POSTS) --out $(DEMO) --overwrite
	@echo "== comparing what it scores with and without intentions"
	@$(BIN)/python evaluate.py $(DEMO) --data $(POSTS) --split test
	@echo "== exporting it to ONNX"
	@$(BIN)/miko-clf export $(DEMO)
	@echo "== serving it and asking about one post"
	@port=$$($(BIN)/python -c '$(FREE_PORT)') || exit 1; \
	$(BIN)/miko-clf serve $(DEMO) --port $$port & server=$$!; \
	trap 'kill $$server 2>/dev/null; wait $$server' EXIT; \
	$(BIN)/miko-clf ask http://127.0.0.1:$$port $(POSTS)/test.jsonl --wait 60

# Two processes of one thread each are quicker than one of two; the last line measures and prints.
define TRAINED
	@export MIKO_ENCODERS=$(SHARED)/encoders; \
	run() { $(BIN)/python benchmarks/systems.py $(1) $(SHARED)/data/$(2) --seeds $(3) \
	  --out runs/table-$(2) "$$@"; }; \
	(export OMP_NUM_THREADS=1; run --train-only) & first=$$!; \
	(export OMP_NUM_THREADS=1; run --train-only) && wait $$first && run
endef

table-harm-c: $(STAMP)  ## every system that small towers serve on Harm-C, three seeds: 45 minutes
	$(call TRAINED,harm-c,harm-c,3)

STUDENT := mobilenet-minilm-student
WRITES := reasoning.generate=1,reasoning.share=0.25
table-reasoning: $(STAMP)  ## the student on Harm-C without and with reasoning stages, five seeds
	@export MIKO_ENCODERS=$(SHARED)/encoders; \
	$(BIN)/miko-clf compare $(STUDENT),reasoning.epochs=0 $(STUDENT) \
	  $(STUDENT),reasoning.align=0,$(WRITES) $(STUDENT),$(WRITES) \
	  --data $(SHARED)/data/harm-c --out runs/reasoning --seeds 5 && \
	$(BIN)/miko-clf evaluate runs/reasoning --data $(SHARED)/data/harm-c \
	  --split test --out docs/reports/reasoning

table-mmsd2: $(STAMP)  ## text and detector words of MMSD2.0, three seeds
	$(call TRAINED,mmsd2,mmsd2,3)

table-miko: $(STAMP)  ## MIKO's question on its own text: with, without and shuffled intentions
	@MIKO_ENCODERS=$(SHARED)/encoders $(BIN)/python benchmarks/miko_question.py \
	  $(SHARED)/data/mmsd2 $(SHARED)/data/miko --out runs/miko

test: $(DOCS_STAMP)  ## format, lint, import contracts, types, tests with coverage
	@$(MAKE) --no-print-directory -j2 lint tests

tests: $(STAMP)
	@echo "== running the tests"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder --cov=miko_clf --cov-fail-under=93

odd: $(STAMP)  ## print the table of odd inputs, and what data, score and the server say of each
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.odd_inputs

docs: $(DOCS_STAMP)  ## build the pages into site/, to be read without a network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -f docs/theme/mkdocs.yml
	@echo "open site/index.html"

$(DOCS_STAMP): $(STAMP)
	@echo "== installing miko_clf[docs], which builds the pages"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]'
	@touch $@

check-graphs: $(STAMP)  ## compare the exported graph of every recipe with torch
	@$(BIN)/pytest -m graphs

check-vllm: $(STAMP) $(VLLM_STAMP)  ## ask a real vLLM for schemas and images, and run a batch
	@$(BIN)/pytest -m vllm

$(VLLM_STAMP): tests/vllm/requirements.txt tests/vllm/overrides.txt tests/vllm/sitecustomize.py \
  tests/vllm/settle.py
	@echo "== making $(VLLM) with vLLM for the CPU: about 3.5 GB, one to four minutes"
	@$(PYTHON) -m venv --clear $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c tests/vllm/requirements.txt torch || { \
	  echo "pip finds no torch of tests/vllm/requirements.txt; name a place that has it in PIP_FIND_LINKS"; exit 1; }
	@$(VLLM)/bin/uv pip install --python $(VLLM)/bin/python -r tests/vllm/requirements.txt \
	  --overrides tests/vllm/overrides.txt
	@$(VLLM)/bin/python tests/vllm/settle.py
	@touch $@

lint: $(STAMP)  ## what make test checks before the tests
	@echo "== checking format, style, imports and types"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

format: $(STAMP)  ## put the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## delete what the tools wrote; .venv and runs stay
	@rm -rf build dist *.egg-info .coverage .coverage.* htmlcov .mypy_cache .pytest_cache
	@rm -rf .ruff_cache .import_linter_cache .hypothesis site
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
