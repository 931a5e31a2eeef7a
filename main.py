"""Train a model: pre-training, and everything a pre-trained encoder is for.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart
    python main.py --config=configs/vit_b_100ep.py --workdir=DIR --config.batch_size=1024 --config.data.flip=false
    python main.py --config=configs/vit_b_100ep.py --dry_run

The same command resumes a run. `python -m localmim_jax.train` is the same program, and runs in any directory. Exit
status: 0 done, 1 unexpected error, 2 bad config or data, 3 diverged, 4 storage, 75 preempted and saved, 130 interrupted
and saved.
"""

from localmim_jax.cli import program
from localmim_jax.cli.train import define_flags, main

if __name__ == "__main__":
    program.run(main, define_flags, usage=__doc__)
