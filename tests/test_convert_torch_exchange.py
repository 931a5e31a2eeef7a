"""timm -> ours -> timm and Transformers -> ours -> Transformers, bit for bit; the same features on a photograph."""

import jax
import numpy as np
import pytest

from localmim_jax import params as trees
from localmim_jax.api.binding import fill_model
from localmim_jax.api.infer import config_for
from localmim_jax.cli.convert import convert
from localmim_jax.tasks import initialize

pytestmark = pytest.mark.torch
TOLERANCE = 1e-5
VIT = {"embed_dim": 64, "depth": 4, "num_heads": 4, "num_classes": 10}
SWIN = {"embed_dim": 16, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8), "num_classes": 10}
TIMM = {
    "vit": ("vit_base_patch16_224", VIT),
    "vit pooled": ("vit_base_patch16_224", VIT | {"global_pool": "avg"}),
    "vit normalized, then pooled": ("vit_base_patch16_224", VIT | {"global_pool": "avg", "fc_norm": False}),
    "vit without head": ("vit_base_patch16_224", VIT | {"num_classes": 0, "global_pool": "avg", "fc_norm": False}),
    "vit pooled, without head": ("vit_base_patch16_224", VIT | {"num_classes": 0, "global_pool": "avg"}),
    "registers": ("vit_base_patch16_224", VIT | {"reg_tokens": 4, "no_embed_class": True, "global_pool": "avg"}),
    "swin": ("swin_base_patch4_window7_224", SWIN),
    "swin without head": ("swin_base_patch4_window7_224", SWIN | {"num_classes": 0}),
}


@pytest.fixture(scope="module")
def photo():
    """A crop of a real photograph, normalized as for ImageNet: float32 [1, 224, 224, 3]."""
    from skimage import data

    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return ((data.astronaut()[None, :224, 100:324] / np.float32(255)) - mean) / std


def randomize(torch, model):
    """Drawn like trained ones: no norm, bias or token is as it begins."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "token" not in name and "pos" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(mean=float("norm" in name and name.endswith("weight")), std=0.2)
    return model.eval()


def assert_equal_states(torch, found, expected):
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def our_output(path, photo):
    """Logits of a classifier, else the pooled feature, from a directory or a file alone."""
    weights = initialize.read(str(path))
    config, filled = config_for(weights)
    graphdef, *arrays = fill_model(config, filled)
    with_head = weights.info.kind == "classifier"

    def compute(params, state, images):
        model = trees.merge(graphdef, params, state)
        return model(images) if with_head else model.features(images)

    return np.asarray(jax.jit(compute)(*arrays, photo))


@pytest.mark.parametrize("name", TIMM)
def test_timm_to_ours_to_timm(torch, timm, photo, tmp_path, name):
    """A file of timm's -> ours -> a directory -> `create_model`, which loads strictly; and again from the directory."""
    architecture, settings = TIMM[name]
    theirs = randomize(torch, timm.create_model(architecture, pretrained=False, **settings))
    timm.models.save_for_hf(theirs, tmp_path / "theirs", model_args=settings, safe_serialization=True)
    convert(str(tmp_path / "theirs"), str(tmp_path / "ours.npz"))
    lines = convert(str(tmp_path / "ours.npz"), str(tmp_path / "timm"), names="timm")
    assert not any(line.startswith("note") for line in lines), lines
    again = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert_equal_states(torch, again.state_dict(), theirs.state_dict())
    cfg = timm.data.resolve_data_config({}, model=again)
    assert (list(cfg["mean"]), list(cfg["std"])) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert tuple(cfg["input_size"]) == (3, 224, 224)
    with torch.no_grad():
        images = torch.from_numpy(photo).permute(0, 3, 1, 2)
        expected, found = theirs(images).numpy(), again(images).numpy()
    np.testing.assert_array_equal(found, expected)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(our_output(tmp_path / "timm", photo), expected, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("part", ["all", "encoder"])
def test_an_encoder_alone_loads_strictly_in_timm(torch, timm, photo, tmp_path, part):
    theirs = randomize(torch, timm.create_model("swin_base_patch4_window7_224", pretrained=False, **SWIN))
    timm.models.save_for_hf(theirs, tmp_path / "theirs", model_args=SWIN, safe_serialization=True)
    convert(str(tmp_path / "theirs"), str(tmp_path / "timm"), names="timm", part=part)
    again = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert again.num_classes == (0 if part == "encoder" else 10)
    state = theirs.state_dict()
    for key, tensor in again.state_dict().items():
        plain = part == "encoder" and key in ("norm.weight", "norm.bias")
        assert (tensor == float(key.endswith("weight"))).all() if plain else torch.equal(tensor, state[key]), key
    convert(str(tmp_path / "theirs"), str(tmp_path / "file.safetensors"), names="timm", part="encoder")
    from safetensors.torch import load_file

    headless = timm.create_model("swin_base_patch4_window7_224", pretrained=False, **(SWIN | {"num_classes": 0}))
    headless.load_state_dict(load_file(tmp_path / "file.safetensors"), strict=True)


HF_VIT = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
HF_SWIN = {"embed_dim": 16, "depths": [2, 2, 4, 2], "num_heads": [1, 2, 4, 8]}
HF = {
    "vit": ("ViTForImageClassification", "ViTConfig", HF_VIT | {"num_labels": 10}),
    "vit without head": ("ViTModel", "ViTConfig", HF_VIT),
    "vit without biases": ("ViTForImageClassification", "ViTConfig", HF_VIT | {"num_labels": 10, "qkv_bias": False}),
    "vit mae": ("ViTMAEForPreTraining", "ViTMAEConfig", HF_VIT),
    "swin": ("SwinForImageClassification", "SwinConfig", HF_SWIN | {"num_labels": 10}),
    "swin without head": ("SwinModel", "SwinConfig", HF_SWIN),
    "swin simmim": ("SwinForMaskedImageModeling", "SwinConfig", HF_SWIN),
}


@pytest.mark.parametrize("name", HF)
def test_transformers_to_ours_to_transformers(torch, transformers, photo, tmp_path, name):
    architecture, config, settings = HF[name]
    made = getattr(transformers, config)(**settings)
    theirs = randomize(torch, getattr(transformers, architecture)(made))
    theirs.save_pretrained(tmp_path / "theirs")
    convert(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    convert(str(tmp_path / "ours"), str(tmp_path / "back"), names="transformers")
    with_head = settings.get("num_labels") is not None
    auto = transformers.AutoModelForImageClassification if with_head else transformers.AutoModel
    arguments = {} if with_head or "swin" in name else {"add_pooling_layer": False}
    again, report = auto.from_pretrained(tmp_path / "back", output_loading_info=True, **arguments)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    again = again.eval()
    base = theirs if with_head else getattr(theirs, theirs.base_model_prefix, theirs)
    state = {
        key: value for key, value in base.state_dict().items() if not key.startswith(("pooler.", "embeddings.mask"))
    }
    found = again.state_dict()
    if name == "vit without biases":  # ours are zeros, which is the same
        extra = found.keys() - state.keys()
        assert extra
        assert not any(found.pop(key).any() for key in extra)
    assert_equal_states(torch, found, state)
    assert again.config.layer_norm_eps == made.layer_norm_eps
    with torch.no_grad():
        output = again(torch.from_numpy(photo).permute(0, 3, 1, 2))
    tokens = None if with_head else output.last_hidden_state
    expected = output.logits if with_head else tokens[:, "swin" not in name :].mean(dim=1)
    scale = float(np.abs(expected.numpy()).max())
    assert scale > 0.1
    for source in (tmp_path / "theirs", tmp_path / "back"):
        np.testing.assert_allclose(our_output(source, photo), expected.numpy(), atol=TOLERANCE * scale)
