"""Tables as the command prints and writes them, from run directories on disk."""

import json
from pathlib import Path

import pytest
from absl import flags

from localmim_jax.cli import program, published, tables
from localmim_jax.cli.published import Row, Table
from localmim_jax.errors import ConfigError, StorageError

TABLE = Table("Table X. Two rows", ("backbone", "method"), (Row(("ViT-B", "a"), "vit", "local_multi", 83.3),))


def finish(run, accuracy):
    """The traces that a finished run leaves, as far as tables read them."""
    workdir = Path(run.workdir)
    step = workdir / "checkpoints" / "12"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    (workdir / "config.json").write_text(json.dumps({"num_steps": 12}))
    lines = [{"step": 12, "progress/epoch": 1.0, "loss": 0.1}, {"step": 12, "test/top1": accuracy}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_table_has_the_mean_and_deviation_of_the_seeds_that_are_done(tmp_path):
    (row,), root = TABLE.rows, str(tmp_path)
    for seed, accuracy in enumerate((0.5, 0.7)):
        finish(published.finetuning(row, "small", seed, root), accuracy)
    text = tables.show("tablex", TABLE, "small", 3, root, tmp_path / "results", run=False)
    assert published.SMALL_HEADING in text
    assert "| small ViT | a      | 83.3                  | 60.0 ± 14.1 | 2     |" in text
    assert (tmp_path / "results" / "tablex.md").read_text() in text
    assert (tmp_path / "results" / "tablex.csv").read_text().splitlines() == [
        'backbone,method,"published, full scale",measured,seeds',
        "small ViT,a,83.3,60.0 ± 14.1,2",
    ]


def test_a_table_without_runs_says_so(tmp_path):
    assert tables.measure(TABLE.rows[0], "full", 1, str(tmp_path)) == ["ViT-B", "a", "83.3", "-", "0"]


def test_rows_share_their_pretraining_and_every_run_comes_after_what_it_starts_from(tmp_path):
    wanted = [
        run
        for name in ("table1", "table2", "figure1", "figure2")
        for run in published.runs(published.TABLES[name], "full", 1, str(tmp_path))
    ]
    distinct = {run.workdir: run for run in wanted}
    assert len(wanted) == 2 * (8 + 6) + 6 + 4
    assert len(distinct) == 20  # ten pre-trainings and ten fine-tunings
    seen = set()
    for run in distinct.values():
        starts = [text.partition("=")[2] for text in run.overrides if text.startswith("checkpoint.init_from=")]
        assert seen.issuperset(starts)
        seen.add(run.workdir)


@pytest.mark.parametrize("scale", published.SCALES)
def test_every_run_of_every_table_has_a_config(scale):
    for name in [*published.TABLES, "ablations"]:
        for run in published.runs(tables.find(name, scale), scale, 1, "runs"):
            assert run.load().seed == 0, run.command()


def test_wrong_names_and_places_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown table or figure 'table9': choose from table1, .*, ablations"):
        tables.find("table9", "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"table.md cannot be written: ."):
        tables.write(tmp_path / "file" / "table.md", "text")


def test_the_command_lists_runs_with_their_states(tmp_path, capsys, monkeypatch):
    values = flags.FlagValues()
    tables.define_flags(values)
    values(["tables", "--scale=small", "--seeds=1", f"--root={tmp_path}", "--names=table2"])
    monkeypatch.setenv("XLA_FLAGS", "")
    tables.main(values)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:12]] == ["missing"] * 12
    assert "| backbone   | method" in "\n".join(lines)


def test_a_run_that_is_not_done_is_not_in_the_table(tmp_path):
    (row,), root = TABLE.rows, str(tmp_path)
    finish(published.finetuning(row, "small", 0, root), 0.5)
    begun = published.finetuning(row, "small", 1, root)
    finish(begun, 0.7)
    (Path(begun.workdir) / "config.json").write_text(json.dumps({"num_steps": 24}))
    assert tables.measure(row, "small", 2, root)[-2:] == ["50.0", "1"]


def test_changes_reach_every_run_that_has_the_key():
    arguments = ["table2", "--data=folder:/data/imagenet", "--config.accum_steps=4", "--config.model.num_masks", "4"]
    options = program.parse(arguments, tables.define_flags, tables.POSITIONAL, tables.OVERRIDES)
    assert (options.names, options.changes) == (["table2"], ["accum_steps=4", "model.num_masks=4"])
    runs = published.runs(tables.find("table2", "full"), "full", 1, "runs")
    found = tables.changed(runs, ["data.name=folder:/data/imagenet", *options.changes])
    assert [run.workdir for run in found] == [run.workdir for run in runs]
    for run in found:
        config = run.load()
        assert (config.data.name, config.accum_steps) == ("folder:/data/imagenet", 4)
        assert ("model.num_masks=4" in run.overrides) == ("swin" in run.workdir and run.workdir.endswith("pretrain"))
        assert run.command().count("--config.data.name=folder:/data/imagenet") == 1
    with pytest.raises(ConfigError, match=r"--config\.accum_step: no such key; did you mean --config\.accum_steps"):
        tables.changed(runs, ["accum_step=4"])
    with pytest.raises(ConfigError, match=r"--config\.seed=None: this command sets values only"):
        program.parse(["--config.seed=None"], tables.define_flags, tables.POSITIONAL, tables.OVERRIDES)


def test_the_ablations_need_no_clone(tmp_path, monkeypatch):
    """The recipes that come with the package are used, and a file of one's own goes before them."""
    monkeypatch.chdir(tmp_path)
    assert [row.method for row in tables.find("ablations", "full").rows][-1] == "mask_ratio=0.9"
    small = tables.find("ablations", "small")
    runs = published.runs(small, "small", 1, "runs")
    assert {run.load().task for run in runs} == {"pretrain", "finetune"}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "ablations.py").write_text("def ablations(): return ['mine=1']")
    assert [row.method for row in tables.find("ablations", "full").rows] == ["mine=1"]
