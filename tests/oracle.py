"""Loads the goldens: tiny models of the authors' release with their inputs and outputs."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.convert import names, vit_names
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.method.masking import mask_from_noise
from tests.defaults import localmim_config, target_config, vit_config

GOLDENS = Path(__file__).parent / "goldens"


class PretrainOracle:
    """One pre-training ViT golden: configuration, model and parameters, inputs, every expected number."""

    def __init__(self, name: str):
        self.file = dict(np.load(GOLDENS / f"{name}.npz"))
        self.source = {key[len("param/") :]: value for key, value in self.file.items() if key.startswith("param/")}
        settings = json.loads(str(self.file["config"]))
        bias = None
        if settings["hog_bias"]:
            bias = tuple(tuple(map(float, self.source[f"hog_enc.{i}.conv.bias"])) for i in range(4))
        depth = settings["depth"]
        self.config = localmim_config(
            encoder=vit_config(
                image_size=(settings["img_size"],) * 2,
                patch_size=settings["patch_size"],
                width=settings["embed_dim"],
                depth=depth,
                num_heads=settings["num_heads"],
            ),
            taps=(2, 4, depth - 2, depth),
            target=target_config(kind="hog", bins=settings["hog_nbins"], hog_bias=bias),
            decoder_width=settings["decoder_embed_dim"],
            decoder_num_heads=settings["decoder_num_heads"],
            decoder_depth=settings["decoder_depth"],
            mask_ratio=settings["mask_ratio"],
        )
        self.images = jnp.asarray(self.file["images"])

    def make_model(self, rngs: nnx.Rngs) -> LocalMIM:
        return LocalMIM(self.config, rngs=rngs)

    def rules(self):
        decoders = [vit_names.decoder(i, d.log2_scale) for i, d in enumerate(self.config.decoders())]
        return (*vit_names.ENCODER, *(rule for decoder in decoders for rule in decoder))

    def params(self) -> tuple[object, trees.Tree]:
        graphdef, abstract, _ = trees.split(self.make_model)
        flat = trees.flatten(abstract)
        arrays = names.import_arrays(self.source, flat, self.rules())
        for path, array in arrays.items():
            assert array.shape == flat[path].shape, path
        return graphdef, trees.unflatten({path: jnp.asarray(array) for path, array in arrays.items()})

    def mask(self, noise):
        grid = self.config.encoder.grid
        return mask_from_noise(jnp.asarray(noise), grid, int(grid[0] * grid[1] * (1 - self.config.mask_ratio)))
