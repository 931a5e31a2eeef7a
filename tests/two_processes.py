"""One of the processes of `test_distributed.py`: python -m tests.two_processes PORT COUNT INDEX WORKDIR STEPS."""

import dataclasses
import sys

import numpy as np

from localmim_jax.engine import distributed, loop
from localmim_jax.engine.task import Evaluation
from tests.defaults import checkpoint_settings, log_settings, mesh_settings
from tests.test_evaluate import Accuracy, predict, source
from tests.tiny import SETTINGS, TASK, NormalizedPerceptron, batches


def share(batch, index, count):
    """This process's part of a global batch."""
    size = len(batch["id"]) // count
    return {name: array[index * size : (index + 1) * size] for name, array in batch.items()}


def main(port, count, index, workdir, num_steps):
    if count > 1:
        distributed.initialize(f"127.0.0.1:{port}", count, index)

    def evaluation_batches():
        for batch in source(60, 20)():
            yield share(batch, index, count)

    task = dataclasses.replace(
        TASK,
        make_model=NormalizedPerceptron,
        num_steps=num_steps,
        train_batches=lambda first: (share(batch, index, count) for batch in batches(first)),
        evaluations=(Evaluation("test", evaluation_batches, predict, Accuracy, every_steps=10, best="accuracy"),),
    )
    settings = dataclasses.replace(
        SETTINGS,
        mesh=mesh_settings(fsdp=2),
        log=log_settings(every_steps=1),
        checkpoint=checkpoint_settings(every_steps=5),
    )
    summary = loop.run(task, settings, workdir, {"steps": num_steps})
    numbers = {name: float(np.float32(value)) for name, value in summary.evaluations.items()}
    print(f"RESULT {index} {summary.state_hash} {numbers}", flush=True)


if __name__ == "__main__":
    port, count, index, workdir, steps = sys.argv[1:]
    main(int(port), int(count), int(index), workdir, int(steps))
