"""Train a model: pre-training, fine-tuning, probing, segmentation or detection.

    localmim train --config=configs/quickstart.py --workdir=runs/quickstart
    localmim train --config=configs/vit_b_100ep.py --workdir=DIR --config.data.name=folder:/my/images
    localmim train --config=configs/vit_b_100ep.py --dry_run [--hardware=h100x8]

The same command resumes a run. In a clone of the repository, `python main.py` is the same command. The recipes in
configs/ come with the package: their names work in any directory, and a file of that name takes precedence.

Exit status: 0 done, 1 unexpected error, 2 bad config or data, 3 diverged, 4 storage, 5 an input worker died, 75
preempted and saved, 130 interrupted and saved.
"""

from absl import flags

from localmim_jax.cli import plan, program
from localmim_jax.errors import ConfigError


def define_flags(values: flags.FlagValues) -> None:
    plan.define_flags(values)
    flags.DEFINE_string("workdir", None, "directory of the run: checkpoints, logs, pictures", flag_values=values)
    flags.DEFINE_bool(
        "dry_run", False, "print what would run (config, parameters, FLOPs, memory) and exit", flag_values=values
    )
    flags.DEFINE_string("coordinator_address", None, "host:port of process 0, for several hosts", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "number of processes", flag_values=values)
    flags.DEFINE_integer("process_id", None, "index of this process, from 0", flag_values=values)


def main(options: flags.FlagValues) -> None:
    if options.hardware and not options.dry_run:
        raise ConfigError(f"--hardware={options.hardware} is for --dry_run; a run takes the devices that are here")
    if options.dry_run and options.hardware:
        plan.main(options)
        return
    if options.dry_run:
        from localmim_jax.cli import dry_run

        dry_run.run(options.config)
        return
    workdir = program.workdir(options.workdir)
    # Imported here so that a mistyped flag is answered before jax and its friends have loaded.
    from localmim_jax.api import train
    from localmim_jax.engine import compiled, distributed

    distributed.initialize(options.coordinator_address, options.num_processes, options.process_id)
    compiled.keep_programs()
    train(options.config, workdir)
