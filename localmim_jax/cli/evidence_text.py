"""The prose of docs/evidence.md."""

HEADING = """# Evidence at small scale

Does local multi-scale reconstruction help, outside the paper? `localmim study --page` generates this page from
[study.csv]({csv}); edit neither by hand. It shows what a CPU can do in an afternoon: small models, small
images, few seeds. No independent reproduction at ImageNet's scale is known to us."""

SUMMARY = """What the differences between methods say about the paper's claims, at the same epochs, over encoders,
lengths and measures. Measures of the same runs are not independent. A step of LocalMIM costs more than one of a global
method here, so its advantage at the same epochs is not one at the same cost; see "Accuracy against compute"."""

SETTING = """## Setting

- Data: Fashion-MNIST ([github.com/zalandoresearch/fashion-mnist](https://github.com/zalandoresearch/fashion-mnist)),
  60,000 training and 10,000 test photographs of clothing in ten classes, 28 x 28 gray pixels enlarged to 64 x 64.
- Small ViT: patch 8 (a grid of 8 x 8), width 64, depth 6, mask ratio 0.75. Small Swin: patch 4, three stages, mask
  ratio 0.5. Decoders have one block of width 32. Recipes: `configs/study.py` and `configs/study_finetune.py`.
- Methods differ in the target (HOG or normalized pixels) and in the reconstruction (global or local, one scale or
  several). Everything else is the same: code, optimizer, rate, mask ratio, kind of decoder, epochs.
- "MAE-like" and "MaskFeat-like" name what is reconstructed from where. They are not those papers' models: MAE has a
  deep decoder, and MaskFeat's encoder sees mask tokens.
- "No pre-training" is the same network as it is initialized, and fine-tuned from there: supervised training from
  scratch."""

RESULTS = """Accuracy in %, mean ± sample standard deviation over the seeds. k-NN (k = 20) has the labels of 6,000
training images (a tenth of each class) as its memory; probes are logistic regressions on the frozen feature with the
labels of 600 or 6,000 images. Both classify 4,000 test images (400 of each class), and fine-tuned models all 10,000.
A number in parentheses says how many seeds a mean has where it is not all of them. CPU minutes are those of the
training steps, reading included."""

CLAIMS = """Difference between two methods with the same seeds, in points of accuracy, with a 95 % bootstrap interval
over the seeds. "Holds" and "the opposite" mean that the interval leaves out zero, with at least three seeds. With
three, an interval is the range of a few resampled means and too narrow: read it as "all seeds agree", not as a test.
Published differences are of ViT-B fine-tuned on ImageNet-1K after 100 epochs (supplement, Table 1)."""

COMPUTE = """The paper's claim is about time: the same accuracy in fewer device hours. Below, LocalMIM is compared
with the global methods at the same epochs, and at the same FLOPs and CPU time, at which the other method's accuracy
is interpolated between its lengths (along the logarithm of the cost; "-" where it lies outside of them). Differences
are in points of the probe with 10 % of the labels. The last two columns have LocalMIM's cost over the
other method's for the same epochs. With encoders this small, four decoders are a large part of it; ViT-B's recipe
needs 1.14 times the FLOPs of global_single (30.9 and 27.1 GFLOP an image)."""

ONLINE = """Spearman's rank correlation of the probe (10 % of the labels) with three measures that need no labels,
over runs: RankMe, the effective rank of the features' covariance, and uniformity, negated so that more even is
larger. +1 means that the measure orders the runs as the probe does."""

CAVEATS = """- Fashion-MNIST is small and easy. Its photographs are centered, of one scale and without background, so
  what several scales are worth on natural images is not tested.
- The encoders have below half a million parameters, and the longest pre-training here is a tiny fraction of the
  paper's. Rankings of short runs can turn around with longer ones; compare the lengths.
- One learning rate and one mask ratio for all methods, tuned for none of them.
- Few seeds, which vary initialization, order, crops and masks; the data is the same.
- CPU time was measured on a shared machine. It counts this process alone, but others' use of the caches slows it
  down.
- Which labels are the 1 % and 10 % is fixed, so the variation between label sets is not in the deviations."""

COMMANDS = """```
localmim study --run                                             # the methods above, three seeds, the shortest length
localmim study --run --lengths=short,medium,long --seeds=5       # the curve
localmim study --run --methods=all --backbones=vit,swin          # Table 1's eight variants
localmim study --run --finetune=1,10,100
localmim study --page                                            # this page and its figures
```

Every command can be stopped and repeated: finished runs are skipped, an interrupted one resumes from its checkpoint
with the same result. Fashion-MNIST is expected where Debian's package `dataset-fashion-mnist` puts it;
`--data=idx:/data/fashion-mnist` names another place."""
