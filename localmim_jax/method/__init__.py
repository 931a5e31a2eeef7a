"""The method, in the paper's order.

- `masking`: which parts of an image the encoder does not see.
- `localmim`: the model and its training objective, put together from the other modules; then its configuration. Start
  here.
- `decoders`: one small decoder for each tapped layer.
- `targets`: what the decoders reconstruct, HOG or normalized pixels at every scale.
- `losses`: the masked error at every scale, and its sum over scales.
- `fusion`: the supplement's alternative, several layers fused for one global reconstruction.

The encoders are in `localmim_jax.models`.
"""
