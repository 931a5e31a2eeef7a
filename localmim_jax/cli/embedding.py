"""A picture of features in two dimensions: a PNG, and one HTML page that shows the image under the pointer."""

import base64
import html
import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localmim_jax.errors import ConfigError, StorageError

METHODS = ("auto", "pca", "umap")
MAX_IMAGES = 3000  # thumbnails in one page

_THUMBNAIL = 96  # pixels
_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#7f7f7f", "#e67e22", "#1b9e77", "#5e3c99")


def require(method: str) -> None:
    """Raises ConfigError where a package that the plot needs is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("plots need matplotlib: pip install 'localmim-jax[demo]'")
    if method == "umap" and importlib.util.find_spec("umap") is None:
        raise ConfigError("--embedding=umap needs a package: pip install umap-learn; or take --embedding=pca")


def embed(features: np.ndarray, method: str = "auto") -> tuple[np.ndarray, str]:
    """(places float64 [n, 2], what the axes are) of features [n, d], n at least 2.

    "pca" is the two directions of largest variance of the centered features; "umap" is UMAP (McInnes et al., 2018) with
    its defaults and a fixed seed; "auto" is UMAP where the package umap-learn is installed and there are 20 images.

    Raises:
        ConfigError: UMAP is asked for and not installed.
    """
    installed = importlib.util.find_spec("umap") is not None
    require(method)
    if method == "umap" or (method == "auto" and installed and len(features) >= 20):
        import umap

        places = umap.UMAP(random_state=0, n_jobs=1).fit_transform(features)
        return np.asarray(places, np.float64), "UMAP"
    centered = np.asarray(features, np.float64) - features.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    places = left * values
    places = np.pad(places, ((0, 0), (0, max(0, 2 - places.shape[1]))))[:, :2]
    total = max(float(np.square(values).sum()), np.finfo(float).tiny)
    first, second = (100 * float(np.square(value)) / total for value in [*values, 0.0, 0.0][:2])
    return places, f"PCA: {first:.0f} % and {second:.0f} % of the variance"


def draw_png(path: Path, places: np.ndarray, groups: Sequence[str], title: str) -> None:
    """A scatter plot, one color a group. Raises ConfigError without matplotlib, StorageError."""
    require("pca")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 6), layout="constrained")
    names = sorted(set(groups))
    for number, name in enumerate(names):
        rows = [i for i, group in enumerate(groups) if group == name]
        axis.scatter(places[rows, 0], places[rows, 1], s=14, color=_color(number), label=name, linewidths=0)
    if 1 < len(names) <= 30:
        axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(title=title, xticks=[], yticks=[])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)


def thumbnail(image: Any) -> str:
    """A small JPEG of a uint8 image [h, w, c], as base64."""
    from PIL import Image

    from localmim_jax.evals.drawing import rgb

    picture = Image.fromarray(rgb(np.asarray(image)))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def write_html(
    path: Path, places: np.ndarray, groups: Sequence[str], names: Sequence[str], images: Sequence[str], title: str
) -> None:
    """One page without anything from elsewhere: points that show their image, name and group under the pointer.

    Args:
        path: the file.
        places: [n, 2].
        groups, names, images: of each point; images as `thumbnail` gives them.
        title: above the plot.

    Raises:
        StorageError: it cannot be written.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.where(high > low, high - low, 1)
    known = sorted(set(groups))
    points = [
        [round(20 + 860 * x, 1), round(580 - 560 * y, 1), known.index(group), name, image]
        for (x, y), group, name, image in zip(scaled.tolist(), groups, names, images, strict=True)
    ]
    legend = "".join(
        f'<span><i style="background:{_color(number)}"></i>{html.escape(name)}</span>'
        for number, name in enumerate(known)
    )
    data = json.dumps({"points": points, "groups": known, "colors": [_color(i) for i in range(len(known))]})
    page = _PAGE.replace("@TITLE@", html.escape(title)).replace("@LEGEND@", legend if len(known) > 1 else "")
    try:
        path.write_text(page.replace("@DATA@", data.replace("<", "\\u003c")), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>@TITLE@</title>
<style>
body { font: 14px sans-serif; margin: 16px; color: #222 }
h1 { font-size: 16px }
svg { border: 1px solid #ccc; max-width: 100% }
circle:hover { stroke: #000; stroke-width: 2 }
.legend span { margin-right: 14px; white-space: nowrap }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 4px }
#card { position: fixed; display: none; background: #fff; border: 1px solid #888; padding: 6px; pointer-events: none }
#card img { display: block; min-width: 96px; image-rendering: auto }
</style></head><body>
<h1>@TITLE@</h1>
<p class="legend">@LEGEND@</p>
<svg id="plot" viewBox="0 0 900 600" width="900" height="600"></svg>
<div id="card"><img alt=""><div></div></div>
<script type="application/json" id="data">@DATA@</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.getElementById("plot"), card = document.getElementById("card");
data.points.forEach(([x, y, group, name, image]) => {
  const point = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  const shape = {cx: x, cy: y, r: 5, fill: data.colors[group]};
  for (const [key, value] of Object.entries(shape)) point.setAttribute(key, value);
  point.addEventListener("mouseenter", () => {
    const box = point.getBoundingClientRect();
    card.querySelector("img").src = "data:image/jpeg;base64," + image;
    card.querySelector("div").textContent = name + (data.groups.length > 1 ? " (" + data.groups[group] + ")" : "");
    card.style.left = Math.min(box.right + 8, innerWidth - 220) + "px";
    card.style.top = Math.min(box.bottom + 8, innerHeight - 150) + "px";
    card.style.display = "block";
  });
  point.addEventListener("mouseleave", () => { card.style.display = "none"; });
  plot.append(point);
});
</script></body></html>
"""
