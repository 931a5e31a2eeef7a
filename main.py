"""Train a model: the same as `localmim train`, for a clone of the repository.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

import sys

from localmim_jax.cli import program, train

if __name__ == "__main__":
    program.run(train, "main.py", sys.argv[1:])
