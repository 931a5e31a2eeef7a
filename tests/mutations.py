"""Breaks one constant at a time and sees that a test notices: `python -m tests.mutations [part of a name]`.

Each mutation is made in a copy of the tree; the run fails if a mutated tree still passes its tests. Slow: a mutation
costs one pytest run of the files that guard the mutated one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# name: (file, text, replacement, tests that must notice)
MUTATIONS = {
    "tanh GELU": ("localmim_jax/models/blocks.py", "0.5 * (1.0 + jax.lax.erf(x * 2**-0.5))", "0.5 * (1.0 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))", "localmim"),
    "a GELU's slope without its second part": ("localmim_jax/models/blocks.py", "wide * jnp.exp(", "0 * wide * jnp.exp(", "blocks"),
    "mask token at the visible places": ("localmim_jax/method/masking.py", "mask.masked.reshape(m, 1, -1, 1, 1) > 0", "mask.masked.reshape(m, 1, -1, 1, 1) < 1", "masking"),
    "tanh GELU in a decoder": ("localmim_jax/method/decoders.py", "blocks.gelu(norm(upsample(x)))", "jax.nn.gelu(norm(upsample(x)))", "localmim"),
    "layer-norm epsilon 1e-5": ("localmim_jax/models/vit.py", "epsilon: float = 1e-6", "epsilon: float = 1e-5", "localmim"),
    "tap 3 for tap 2": ("localmim_jax/models/vit.py", "outputs[tap - depth - 1]", "outputs[min(tap - depth, -1)]", "vit localmim"),
    "layer norm: gradient without its mean": ("localmim_jax/models/norm.py", "scaled - scaled.mean(axis=-1, keepdims=True) - normalized", "scaled - normalized", "blocks vit"),
    "layer norm: gradient of the scale without normalizing": ("localmim_jax/models/norm.py", "(wide * normalized).sum(axis=tokens)", "wide.sum(axis=tokens)", "blocks"),
    "loop over blocks: every layout is the even one": ("localmim_jax/models/block_loop.py", "remat, x, *inputs[place], drop)", "remat, x, *inputs[0], drop)", "block_loop"),
    "loop over blocks: one key for all of them": ("localmim_jax/models/block_loop.py", "jax.random.fold_in(drops.key, numbers[place])", "drops.key", "block_loop"),
    "one bin more": ("localmim_jax/method/targets.py", ".astype(jnp.int32) % bins", ".astype(jnp.int32) % (bins + 1)", "targets"),
    "gradients swapped": ("localmim_jax/method/targets.py", "jnp.arctan2(gx, gy)", "jnp.arctan2(gy, gx)", "targets"),
    "signed orientation": ("localmim_jax/method/targets.py", "/ jnp.pi * bins", "/ (2 * jnp.pi) * bins", "targets"),
    "HOG epsilon": ("localmim_jax/method/targets.py", "jnp.maximum(norm, _EPSILON)", "(norm + 0.01)", "targets"),
    "HOG without root": ("localmim_jax/method/targets.py", "norm = jnp.sqrt(jnp.square(histogram).sum(axis=2, keepdims=True))", "norm = jnp.abs(histogram).sum(axis=2, keepdims=True)", "targets"),
    "biased variance": ("localmim_jax/method/targets.py", "ddof=1", "ddof=0", "targets"),
    "row before column": ("localmim_jax/models/positions.py", "[np.sin(angles_x), np.cos(angles_x), np.sin(angles_y), np.cos(angles_y)]", "[np.sin(angles_y), np.cos(angles_y), np.sin(angles_x), np.cos(angles_x)]", "blocks localmim"),
    "binary weight at the coarse scale": ("localmim_jax/models/mask.py", ".mean(axis + 1)", ".max(axis + 1)", "masking localmim"),
    "largest noise kept": ("localmim_jax/method/masking.py", "jnp.argsort(noise, axis=1)", "jnp.argsort(-noise, axis=1)", "masking"),
    "loss over visible patches too": ("localmim_jax/method/losses.py", "(error * weight).sum()", "error.sum()", "losses localmim"),
    "norms decayed": ("localmim_jax/models/decay.py", '(r"(^|/)(bias|scale)$", False)', '(r"(^|/)(bias|scale)$", True)', "decay"),
    "class token not decayed": ("localmim_jax/models/decay.py", '(r"(^|/)(kernel|class_token|mask_token)$", True)', '(r"(^|/)(kernel|mask_token)$", True), (r"class_token$", False)', "decay"),
    "Adam's second moment": ("localmim_jax/engine/optim.py", "settings.b1, settings.b2,", "settings.b1, 0.999,", "decay"),
    "decay not scaled by the rate": ("localmim_jax/engine/optim.py", "-learning_rate * scale * d", "-learning_rate * scale**2 * d * 1.001", "decay"),
    "no positions in the decoder": ("localmim_jax/method/decoders.py", "tokens = tokens + jnp.asarray", "tokens = tokens + 0 * jnp.asarray", "decoders localmim"),
    "norm after upsampling dropped": ("localmim_jax/method/decoders.py", "blocks.gelu(norm(upsample(x)))", "blocks.gelu(upsample(x))", "localmim"),
    "softmax scale": ("localmim_jax/models/blocks.py", "attend(q, k, v, bias, mask, self.implementation)", "attend(q * 1.01, k, v, bias, mask, self.implementation)", "blocks localmim"),
    "fine-tuning: class token pooled too": ("localmim_jax/models/classifier.py", "else x[:, prefix:]", "else x", "classifier"),
    "fine-tuning: norm before the pooling": ("localmim_jax/models/classifier.py", 'if config.head_order == "norm_pool":', 'if config.head_order == "pool_norm":', "classifier"),
    "fine-tuning: no position for the class token": ("localmim_jax/models/vit.py", "self.class_token[...].astype(table.dtype) + table[0]", "self.class_token[...].astype(table.dtype)", "classifier"),
    "fine-tuning: batch norm's momentum": ("localmim_jax/models/classifier.py", "BATCH_NORM_MOMENTUM = 0.9", "BATCH_NORM_MOMENTUM = 0.1", "classifier"),
    "fine-tuning: patch merging one layer up": ("localmim_jax/models/swin.py", "return sum(self.depths[: int(merging[1]) + 1])", "return sum(self.depths[: int(merging[1]) + 1]) + 1", "layers"),
    "fine-tuning: first block with the embeddings": ("localmim_jax/models/swin.py", "+ int(block[2]) + 1", "+ int(block[2])", "layers"),
    "fine-tuning: bias tables not decayed": ("localmim_jax/models/decay.py", '(r"(^|/)(kernel|relative_position_bias)$", True)', '(r"(^|/)kernel$", True), (r"relative_position_bias$", False)', "layers"),
    "fine-tuning: positions decayed": ("localmim_jax/models/decay.py", '(kernel|relative_position_bias)$", True),\n    (r"(^|/)(bias|scale|class_token|position_embedding)$"', '(kernel|relative_position_bias|position_embedding)$", True),\n    (r"(^|/)(bias|scale|class_token)$"', "layers"),
    "fine-tuning: smoothing over the other classes": ("localmim_jax/ops/mixup.py", "one_hot * (1 - smoothing) + smoothing / num_classes", "one_hot * (1 - smoothing) + (1 - one_hot) * smoothing / (num_classes - 1)", "mixup"),
    "fine-tuning: targets mixed with themselves": ("localmim_jax/ops/mixup.py", "targets * share + targets[::-1] * (1 - share)", "targets * share + targets * (1 - share)", "mixup"),
    "fine-tuning: cutmix box of 1 - lambda along a side": ("localmim_jax/ops/mixup.py", "jnp.sqrt(1 - blend)", "(1 - blend)", "mixup"),
    "fine-tuning: lambda drawn, not counted": ("localmim_jax/ops/mixup.py", "1 - box.mean(dtype=jnp.float32)", "blend + 0 * box.mean(dtype=jnp.float32)", "mixup"),
    "fine-tuning: erased aspect is width / height": ("localmim_jax/ops/erasing.py", "jnp.sqrt(area * aspect)", "jnp.sqrt(area * aspect**2)", "erasing"),
    "fine-tuning: one color per erased pixel": ("localmim_jax/ops/erasing.py", "jax.random.normal(noise_key, images.shape, images.dtype)", "jax.random.normal(noise_key, (*images.shape[:3], 1), images.dtype)", "erasing"),
    "fine-tuning: nearest neighbor in RandAugment": ("localmim_jax/data/randaugment.py", "Resampling.BICUBIC", "Resampling.NEAREST", "randaugment"),
    "fine-tuning: every op applied": ("localmim_jax/data/randaugment.py", "if rng.random() >= config.probability:", "if rng.random() >= 1:", "randaugment"),
    "fine-tuning: ties counted as right": ("localmim_jax/evals/classification.py", "| ((logits == own) & (classes < labels[:, None]))", "", "classification"),
    "fine-tuning: the same mixture at every step": ("localmim_jax/tasks/finetune.py", "erase_key, mix_key, model_key = jax.random.split(key, 3)", "erase_key, mix_key, model_key = jax.random.split(jax.random.key(0), 3)", "finetune"),
    "fine-tuning: drop path in the evaluation": ("localmim_jax/tasks/finetune.py", 'ranks_and_losses(model(normalize(batch["image"])),', 'ranks_and_losses(model(normalize(batch["image"]), jax.random.key(0)),', "finetune"),
    "fine-tuning: encoder trained by a probe": ("localmim_jax/tasks/linear_probe.py", 'path.startswith("head/")', "True", "finetune"),
    "merging order swapped": ("localmim_jax/models/swin_blocks.py", "(j i d)", "(i j d)", "swin"),
    "shift dropped": ("localmim_jax/models/swin.py", "return self.window, self.window // 2", "return self.window, 0", "swin"),
    "relative bias: row and column exchanged": ("localmim_jax/models/positions.py", "(dy * (2 * window - 1) + dx)", "(dx * (2 * window - 1) + dy)", "windows"),
    "relative bias: key minus query": ("localmim_jax/models/positions.py", "index = (dy * (2 * window - 1) + dx).astype(np.int32)", "index = (dy * (2 * window - 1) + dx).astype(np.int32).T.copy()", "windows"),
    "a sparse window's tokens leak": ("localmim_jax/models/windows.py", "jnp.where(same, bias, _NEVER)", "bias", "windows"),
    "a dense window's tokens leak": ("localmim_jax/models/windows.py", "jnp.where(region[:, :, :, None] == region[:, :, None, :], bias, _NEVER)", "bias", "swin"),
    "units in another order after merging": ("localmim_jax/models/swin.py", "return sparse_windows(mask.keep, mask.grid", "return sparse_windows(jnp.sort(mask.keep, axis=1)[:, ::-1] if index else mask.keep, mask.grid", "windows"),
    "one group too few": ("localmim_jax/models/windows.py", "number = min(num_groups(n, window), num_visible)", "number = max(min(num_groups(n, window), num_visible) // 2, 1)", "windows"),
    "no shift in a window as large as the grid": ("localmim_jax/models/swin.py", 'if self.window_rule == "shrink" and grid <= self.window', "if grid <= self.window", "swin"),
    "padded positions masked": ("localmim_jax/models/windows.py", "x = jnp.where(inside, x, fill.reshape(1, 1, 1, -1))", "x = jnp.where(inside, x, 0 * fill.reshape(1, 1, 1, -1))", "swin"),
    "mask tokens of Swin decayed": ("localmim_jax/models/decay.py", "(r\"(^|/)kernel$\", True)", "(r\"(^|/)(kernel|mask_token)$\", True)", "pretrain_swin"),
    "detection: anchors centered on the cell": ("localmim_jax/detection/anchors.py", "[:, :, None] * float(stride)", "[:, :, None] * float(stride) + stride / 2", "anchors"),
    "detection: width over height": ("localmim_jax/detection/anchors.py", "np.stack([side / root, side * root], axis=-1)", "np.stack([side * root, side / root], axis=-1)", "anchors"),
    "detection: the first of several tied objects": ("localmim_jax/detection/assign.py", "last = jnp.max(jnp.where(tied, jnp.arange(1, count + 1, dtype=jnp.int32)[None], 0), axis=1)", "last = jnp.where(tied.any(axis=1), tied.argmax(axis=1).astype(jnp.int32) + 1, 0)", "assign"),
    "detection: best anchors of an object not positive": ("localmim_jax/detection/assign.py", "return jnp.where(last > 0, last, result)", "return jnp.where(last > count, last, result)", "assign"),
    "detection: all samples may be positive": ("localmim_jax/detection/assign.py", "int(self.num_samples * self.positive_fraction)", "self.num_samples", "assign"),
    "detection: deltas not divided by their deviations": ("localmim_jax/detection/boxes.py", "return deltas / jnp.asarray(stds", "return deltas * jnp.asarray(stds", "boxes"),
    "detection: ratios clipped at 16": ("localmim_jax/detection/boxes.py", "MAX_LOG_RATIO = 4.135166556742356", "MAX_LOG_RATIO = 2.772588722239781", "boxes"),
    "detection: suppressed boxes suppress": ("localmim_jax/detection/nms.py", "(suppresses & keep[:, None]).any(axis=0)", "suppresses.any(axis=0)", "nms"),
    "detection: RoIAlign without the half pixel": ("localmim_jax/detection/roi_align.py", "* (size / count)[expand] - 0.5", "* (size / count)[expand]", "roi_align"),
    "detection: RoIAlign's samples rounded down": ("localmim_jax/detection/roi_align.py", "jnp.clip(jnp.ceil(size)", "jnp.clip(jnp.floor(size)", "roi_align"),
    "detection: levels from 112 px": ("localmim_jax/detection/roi_align.py", "finest: float = 56.0", "finest: float = 112.0", "roi_align"),
    "detection: anchors of the padding drawn": ("localmim_jax/detection/rpn.py", "usable = (centers[None] < sizes[:, None]).all(axis=-1)", "usable = (centers[None] < sizes[:, None] + 1e6).all(axis=-1)", "rpn"),
    "detection: proposals reach into the padding": ("localmim_jax/detection/rpn.py", "moved = box_ops.clip(moved, sizes)", "moved = box_ops.clip(moved, sizes + 64)", "rpn"),
    "detection: objects not among the regions": ("localmim_jax/detection/roi.py", "jnp.concatenate([gt_valid, valid])", "jnp.concatenate([gt_valid & False, valid])", "roi"),
    "detection: box loss over the positives": ("localmim_jax/detection/roi.py", "regression = jnp.where(positive[..., None], error, 0.0).sum() / count", "regression = jnp.where(positive[..., None], error, 0.0).sum() / jnp.maximum(positive.sum(), 1)", "roi"),
    "detection: a score of twice the minimum": ("localmim_jax/detection/roi.py", "usable = valid & (scores > score_threshold)", "usable = valid & (scores > 2 * score_threshold)", "roi"),
    "detection: masks of the object, not of the region": ("localmim_jax/detection/roi.py", "place = (rois - jnp.tile(gt_boxes[..., :2], 2)) / side * size", "place = (gt_boxes - jnp.tile(gt_boxes[..., :2], 2)) / side * size + 0 * rois", "roi"),
    "detection: pasted without the half pixel": ("localmim_jax/detection/paste.py", "at = (pixels + 0.5 - start)", "at = (pixels - start)", "paste"),
    "detection: boxes of the resized image reported": ("localmim_jax/detection/coco_ap.py", "(across, down, across, down)", "(1.0, 1.0, 1.0, 1.0)", "coco_ap"),
    "detection: the right edge for the width": ("localmim_jax/detection/coco_ap.py", '"bbox": [left, top, right - left, bottom - top]', '"bbox": [left, top, right, bottom]', "coco_ap"),
    "detection: masks not flipped": ("localmim_jax/detection/augment.py", "size[1] - right, size[1] - left, drawn[:, ::-1]", "size[1] - right, size[1] - left, drawn", "detection_augment"),
    "detection: crowds learned from": ("localmim_jax/detection/coco.py", 'if annotation["iscrowd"]:', "if False:", "coco"),
    "detection: labels in the file's order": ("localmim_jax/detection/coco_json.py", 'sorted(categories, key=lambda category: category["id"])', "categories", "coco"),
    "detection: portrait images at the start": ("localmim_jax/data/plan.py", "return (2 * steps * second + total) // (2 * total)", "return min(steps, second)", "detection_buckets"),
    "detection: an epoch's rest dropped": ("localmim_jax/data/plan.py", "-(-len(group.members) // batch_size) * batch_size", "len(group.members) // batch_size * batch_size", "detection_buckets"),
    "detection: the padding normalized": ("localmim_jax/detection/task.py", "jnp.where(rows & columns, normalize(images), 0.0)", "normalize(images)", "detection_task"),
    "detection: the command's boxes left as resized": ("localmim_jax/detection/predict.py", 'to_original(found["boxes"], example["size"], pixels.shape[:2])', 'found["boxes"]', "detection_task"),
    "segmentation: mask not mirrored": ("localmim_jax/segmentation/augment.py", "image, labels = image[:, ::-1], labels[:, ::-1]", "image, labels = image[:, ::-1], labels", "segmentation_augment"),
    "segmentation: any crop will do": ("localmim_jax/segmentation/augment.py", "0 < counts.max() < self.max_class_fraction * counts.sum()", "True", "segmentation_augment"),
    "segmentation: labels half a pixel off": ("localmim_jax/segmentation/augment.py", "((2 * np.arange(new) + 1) * old) // (2 * new)", "(np.arange(new) * old) // new", "segmentation_augment"),
    "segmentation: hue turned back": ("localmim_jax/segmentation/augment.py", "hue * (256 / 360)", "-hue * (256 / 360)", "segmentation_augment"),
    "segmentation: zero is a class": ("localmim_jax/segmentation/numbering.py", "return 1 if self.zero_ignored else 0", "return 0", "segmentation_sources"),
    "segmentation: last window hangs over": ("localmim_jax/segmentation/sliding.py", "np.minimum(np.arange(count) * stride, side - window)", "np.arange(count) * stride", "sliding"),
    "segmentation: windows added, not averaged": ("localmim_jax/segmentation/sliding.py", "(total / times[None])", "total", "sliding"),
    "segmentation: mirror image not mirrored back": ("localmim_jax/segmentation/sliding.py", "of_scale(images[:, :, ::-1])[:, :, ::-1]", "of_scale(images[:, :, ::-1])", "sliding"),
    "segmentation: unlabeled pixels in the loss": ("localmim_jax/segmentation/pixel_loss.py", "jnp.where(labeled, jax.nn.logsumexp(scores, axis=-1) - own, 0.0)", "jax.nn.logsumexp(scores, axis=-1) - own", "pixel_loss"),
    "segmentation: union counts hits twice": ("localmim_jax/segmentation/miou.py", "(gt + predicted - correct)", "(gt + predicted)", "miou"),
    "segmentation: absent classes count as zero": ("localmim_jax/segmentation/miou.py", "float(np.nanmean(values))", "float(np.nan_to_num(values).mean())", "miou"),
    "segmentation: auxiliary weight 1": ("localmim_jax/segmentation/task.py", "total + model.config.auxiliary_weight *", "total + 1.0 *", "segmentation_task"),
    "segmentation: statistics left behind": ("localmim_jax/tasks/initialize.py", "model_state = unflatten({path: flat.pop(path) for path in statistics})", "_ = [flat.pop(path) for path in statistics]", "segmentation_task"),
    "analysis: a query against itself": ("localmim_jax/analysis/attention.py", "pairs = same & ~np.eye(group.shape[1], dtype=bool)", "pairs = same", "attention"),
    "analysis: NMI by the arithmetic mean": ("localmim_jax/analysis/attention.py", "np.sqrt(np.log(np.maximum(count, 1))) * jnp.sqrt(jnp.maximum(entropy, 0.0))", "0.5 * (np.log(np.maximum(count, 1)) + entropy)", "attention"),
    "analysis: distance in patches": ("localmim_jax/analysis/attention.py", "(height / (int(coordinates[..., 0].max()) + 1))", "1.0", "analysis"),
    "analysis: padding counted as images": ("localmim_jax/analysis/attention.py", "count += int(valid.sum())", "count += len(valid)", "analysis"),
    "analysis: the gradient of one batch": ("localmim_jax/analysis/gradients.py", "np.mean(found, axis=0)", "found[-1]", "analysis"),
    "analysis: squared norms": ("localmim_jax/analysis/gradients.py", "return jnp.sqrt(jnp.stack(", "return (jnp.stack(", "attention"),
    "analysis: one mask for all batches": ("localmim_jax/analysis/gradients.py", "jax.random.fold_in(jax.random.key(config.seed), index)", "jax.random.fold_in(jax.random.key(config.seed), 0)", "analysis"),
    "analysis: CKA of features not centered": ("localmim_jax/analysis/layers.py", "np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=np.float64)", "np.asarray(z, np.float64)", "attention"),
    "analysis: CKA of a run with itself": ("localmim_jax/analysis/layers.py", "for y in layers[1]]", "for y in layers[0]]", "analysis"),
    "analysis: class token among the patches": ("localmim_jax/analysis/layers.py", "x[:, encoder.config.num_prefix_tokens :]", "x", "analysis"),
    "analysis: tokens not normalized": ("localmim_jax/analysis/layers.py", "((tokens - mean) / jnp.sqrt(variance + 1e-6)).mean(axis=1)", "tokens.mean(axis=1)", "analysis"),
    "analysis: the end for the middle": ("localmim_jax/analysis/shared.py", 'int(newest.name) / 2 if at == "middle"', 'int(newest.name) if at == "middle"', "analysis"),
    "analysis: remembered with other settings": ("localmim_jax/analysis/shared.py", 'if known["settings"] == settings:', "if known:", "analysis"),
    "tables: unfinished runs counted": ("localmim_jax/cli/tables.py", "for run in runs if run.state() is State.DONE]", "for run in runs]", "tables"),
    "tables: fine-tuned from half a pre-training": ("localmim_jax/cli/tables.py", "and start is not None and state_of(start) is not State.DONE", "and False", "runs"),
    "tables: population deviation": ("localmim_jax/cli/tables.py", "statistics.stdev(percent)", "statistics.pstdev(percent)", "tables"),
}  # fmt: skip


def survives(file: str, text: str, replacement: str, tests: str) -> bool:
    """Whether the tests pass although the text was replaced."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("localmim_jax", "configs", "tests", "pyproject.toml", "main.py"):
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, Path(folder) / name)
        path = Path(folder) / file
        original = path.read_text()
        if original.count(text) < 1:
            raise SystemExit(f"{file} no longer holds {text!r}: update this list")
        path.write_text(original.replace(text, replacement))
        files = [f"tests/test_{name}.py" for name in tests.split()]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": folder},
            capture_output=True,
            text=True,
        )
        if run.returncode not in (0, 1):
            raise SystemExit(run.stdout + run.stderr)
        return run.returncode == 0


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    survivors = []
    for name, mutation in MUTATIONS.items():
        if wanted in name:
            alive = survives(*mutation)
            print(f"{'SURVIVED' if alive else 'caught  '}  {name}", flush=True)
            survivors += [name] * alive
    if survivors:
        raise SystemExit(f"no test noticed: {', '.join(survivors)}")


if __name__ == "__main__":
    main()
