# Everything lives in .venv inside the clone. `make reproduce` runs the study, `make test` the tests.
PYTHON ?= python3
CONFIG ?= configs/study.yaml
CORES ?= all
# Where the study's own file says that results go.
RESULTS ?= $(or $(shell sed -n 's/^results: *\([^ \#]*\).*/\1/p' $(CONFIG) 2>/dev/null),results)
BIN := .venv/bin
# The embedded model that `make pocket` trains, and where to.
MODEL ?= llava
TRAINED = results/pocket-training$(if $(filter-out llava,$(MODEL)),-$(MODEL))
# uv does not read pip's settings; a local wheel folder set for pip serves it too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export HF_HUB_DISABLE_TELEMETRY := 1
export TRANSFORMERS_VERBOSITY ?= error
# Most of a job's time goes into imports, which take twice as long where Python may not keep its bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help reproduce check estimate test lint pocket dashboard demo wandb gallery docs lock clean

# Lists the targets.
help:
	@awk '/^# /{if (!text) text=substr($$0, 3); next} /^[a-z]+:/{if (text) printf "%-12s%s\n", substr($$1, 1, length($$1) - 1), text} {text=""}' Makefile

# The whole study, with its report.
reproduce: .venv/.ready
	$(BIN)/python -m prunesid run $(CONFIG) --cores $(CORES)

# Everything that the study lacks, before it runs: packages, GPU, disk, checkpoint, data, tokens. Downloads nothing.
check: .venv/.ready
	$(BIN)/python -m prunesid check $(CONFIG)

# What the study will take, from what this machine has done of it; computes nothing.
estimate: .venv/.ready
	$(BIN)/python -m prunesid estimate $(CONFIG) --cores $(CORES)

# All tests, on two workers.
test: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# The published runs in the browser, on this machine only; no account.
dashboard: .venv/.ready
	$(BIN)/python -m prunesid.study.tracking.dashboard --config $(CONFIG)

# Ask a model about an image with several methods side by side, in the browser, on this machine only.
demo: .venv/.ready
	@$(BIN)/python -c 'import gradio' 2>/dev/null || \
	    $(BIN)/uv pip install -q --python $(BIN)/python --override overrides.txt gradio==6.31.0
	$(BIN)/python examples/demo/app.py

# Runs, artifacts, workspace and report in W&B; needs an account (`.venv/bin/wandb login`).
wandb: .venv/.ready
	$(BIN)/python -m prunesid.study.tracking.pages --config $(CONFIG)

# A finished study as the committed gallery in reports/, Pocket-LLaVA's ablations first.
gallery:
	for folder in $(wildcard $(RESULTS)/*/ablations/*/); do \
	    to=$$(echo $$folder | sed 's#^$(RESULTS)/#reports/#; s#/ablations/#/#; s#^reports/pocket/#reports/#') && \
	    mkdir -p $$to && cp $$folder/*.md $$folder/*.png $$to; done
	test ! -d $(RESULTS)/travel || { mkdir -p reports/travel; cp $(RESULTS)/travel/*.md $(RESULTS)/travel/*.png reports/travel/; }
	test ! -d $(RESULTS)/pocket/figures || cp $(RESULTS)/pocket/figures/information.png $(RESULTS)/pocket/figures/patches.png reports/

# Style, format and types.
lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

# Trains an embedded model, MODEL=llava, next, gemini, video or qwen (resumes after an interruption), and measures its card.
pocket: .venv/.ready
	$(BIN)/python -m prunesid.pocket.training.train --model $(MODEL) --out $(TRAINED)
	$(BIN)/python -m prunesid.pocket.evaluate --model $(TRAINED) --out $(TRAINED)/card.json

# The documentation as a site in build/site; dead links fail.
docs: .venv/.ready
	$(BIN)/uv pip install -q --python $(BIN)/python --editable '.[docs]'
	$(BIN)/python -m prunesid.study.report.site build
	$(BIN)/zensical build -f build/mkdocs.yml --strict

# Pins the full closure of requirements.in.
# The file names no index, so it serves any mirror. Where there is a CPU build of torch, it is preferred: the
# other one would pin a dozen CUDA packages too.
lock:
	sed -i 's/^\(torch==[0-9.]*\)$$/\1+cpu/' requirements.txt
	$(PYTHON) -m uv pip compile -q --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	    --no-annotate --no-header --override overrides.txt requirements.in -o requirements.txt
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.txt

.venv/.ready: requirements.txt overrides.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q uv==0.13.9
	$(BIN)/uv pip install -q --python $(BIN)/python --override overrides.txt -r requirements.txt
	@# transformers and lmms-eval need torchvision where torch is a CUDA build, and break with it elsewhere.
	@if $(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then \
	    $(BIN)/uv pip install -q --python $(BIN)/python torchvision==0.28.0; fi
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --editable .
	touch $@

# Removes the environment and all results.
clean:
	rm -rf .venv .snakemake results
