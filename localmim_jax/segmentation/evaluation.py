"""Settings of an evaluation, and the class scores of whole images that follow from them."""

import dataclasses
from collections.abc import Callable, Sequence

import jax

from localmim_jax.errors import ConfigError
from localmim_jax.segmentation import sliding

MODES = ("slide", "whole")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How whole images are scored.

    Attributes:
        window: (h, w) of a window in pixels, a square: the size of training crops.
        mode: "slide" averages over windows, "whole" takes the image in one piece.
        stride: pixels between the first pixels of two windows.
        flip: whether to average with the mirror image.
        batch_size: global batch size.
        fixed_size: whether the model takes images of the window's size only, as a ViT does.

    Raises:
        ConfigError: an impossible setting.
    """

    window: tuple[int, int]
    mode: str
    stride: int
    flip: bool
    batch_size: int
    fixed_size: bool

    def __post_init__(self) -> None:
        h, w = self.window
        if h != w:
            raise ConfigError(f"image_size {h}x{w}: crops and windows must be square")
        if self.mode not in MODES:
            raise ConfigError(f"eval.mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        if self.fixed_size and self.mode == "whole":
            raise ConfigError("eval.mode is 'whole', and a ViT's positions have one size: set eval.mode=slide")
        if not 1 <= self.stride <= h:
            raise ConfigError(f"eval.stride is {self.stride}; it must be from 1 to the window, image_size {h}")
        if self.batch_size < 1:
            raise ConfigError(f"eval.batch_size is {self.batch_size}; it must be at least 1")

    def scores(self, model: Callable[[jax.Array], jax.Array], scales: Sequence[jax.Array]) -> jax.Array:
        """Class scores float32 [b, h, w, k] at the size of the first scale.

        Args:
            model: normalized images -> class scores on a coarser grid.
            scales: normalized images [b, h, w, c] at each scale.
        """

        def of_scale(images: jax.Array) -> jax.Array:
            if self.mode == "slide":
                return sliding.sliding_window(model, images, self.window[0], self.stride)
            return sliding.whole_image(model, images)

        return sliding.average(of_scale, scales, self.flip)
