# Every target works on a fresh machine: it makes the environment it needs in .venv, once per change of the files below.
#   make quickstart PYTHON=python3.12     another interpreter
#   make test CONSTRAINTS=                the newest versions of everything instead of those in constraints.txt
#   make bench BATCH=256                  for an accelerator; 8 is for a CPU
#   make test JOBS=4                      processes, of up to 5 GB each
#   make fuzz FUZZ_SECONDS=3600           an hour of it
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BATCH ?= 8
JOBS ?= 2
FUZZ_SECONDS ?= 600
BIN := $(VENV)/bin

.PHONY: help quickstart test test-slow test-torch test-plan fuzz lint types bench
.DELETE_ON_ERROR:

help:
	@echo "make quickstart   pre-train a small model on handwritten digits, on a CPU, in five minutes"
	@echo "make test         the fast tests"
	@echo "make test-slow    the longer proofs, those of test-torch included"
	@echo "make test-torch   of them: PyTorch files, timm's and Transformers' models, ONNX, in an environment of their own ($(VENV)-torch)"
	@echo "make test-plan    localmim plan for GPUs and TPUs that are not here, with their compilers (3 GB) in $(VENV)-plan"
	@echo "make fuzz         new random files, names and configs for FUZZ_SECONDS ($(FUZZ_SECONDS)) in all"
	@echo "make lint         ruff"
	@echo "make types        mypy"
	@echo "make bench        speed of the training step, the HOG targets and the input pipeline"

quickstart: $(VENV)/.installed-demo
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/python main.py --config=configs/quickstart_finetune.py --workdir=runs/quickstart_finetune \
	    --config.checkpoint.init_from=runs/quickstart
	$(BIN)/python main.py --config=configs/quickstart_finetune.py --workdir=runs/quickstart_scratch
	$(BIN)/localmim compare --runs=runs/quickstart_finetune,runs/quickstart_scratch

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow
	$(MAKE) test-torch

test-torch: $(VENV)-torch/.installed
	$(VENV)-torch/bin/python -m pytest -m torch

test-plan: $(VENV)-plan/.installed
	$(VENV)-plan/bin/python -m pytest -m plan

fuzz: $(VENV)/.installed-test
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/fuzz

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy localmim_jax main.py

bench: $(VENV)/.installed-demo
	$(BIN)/localmim bench step_time --config=configs/fake_data_benchmark.py \
	    --config.batch_size=$(BATCH) --steps=10 --parts
	$(BIN)/localmim bench hog
	$(BIN)/localmim bench input_speed

# The suffix is the extra of pyproject.toml.
$(VENV)/.installed-%: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=-c %) -e ".[$*]"
	@touch $@

# Without their dependencies, timm and torchvision take the torch that is there instead of another one of several GB, and
# jax2onnx leaves orbax-checkpoint at the version that is needed here.
$(VENV)-torch/.installed: pyproject.toml $(CONSTRAINTS)
	$(MAKE) VENV=$(VENV)-torch $(VENV)-torch/.installed-test $(VENV)-torch/.installed-torch $(VENV)-torch/.installed-onnx
	$(VENV)-torch/bin/python -m pip install --quiet $(CONSTRAINTS:%=-c %) --no-deps timm torchvision jax2onnx
	$(VENV)-torch/bin/python -m pip install --quiet $(CONSTRAINTS:%=-c %) huggingface_hub pyyaml transformers
	@touch $@

$(VENV)-plan/.installed: pyproject.toml $(CONSTRAINTS)
	$(MAKE) VENV=$(VENV)-plan $(VENV)-plan/.installed-test $(VENV)-plan/.installed-plan-gpu \
	    $(VENV)-plan/.installed-plan-tpu
	@touch $@

# pip is what a venv without ensurepip lacks; such a half-made one would be mistaken for a good one next time.
$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	    { echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
