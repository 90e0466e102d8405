"""Published autoencoders and GANs: what converted files compute, against the record of the projects' own code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lodestar
from lodestar.__main__ import main
from lodestar.codecs import VQVAECodec, pixels
from lodestar.config import Problem
from lodestar.conversion import BIGGAN, DALLE, FAMILIES, autoencoder_folder
from lodestar.conversion.family import check, recognize
from lodestar.conversion.published import Published
from lodestar.conversion.rename import rename
from lodestar.conversion.run import convert, facts, ours
from lodestar.conversion.settings import read
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.data.batch import DataFacts
from lodestar.images import load_png, save_png
from lodestar.models.gan import GanConfig, truncated
from lodestar.nets.biggan import BigGanConfig, Told
from lodestar.nets.codebook import CodebookConfig
from lodestar.nets.dvae import DvaeConfig
from lodestar.presets import PUBLISHED
from lodestar.tasks import TrainGan, TrainVQVAE

from . import family_record as record
from .diffusers_record import weights

RECORDED: dict[str, dict[str, Any]] = json.loads(record.RECORD.read_text())
NAMES: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress(record.NAMES.read_bytes()))
BY_SHORT = {each.short: each for each in PUBLISHED}
FLAGS = {"vqvae2": "--size 16", "ddgan": "--image_size 16 --num_timesteps 4"}
"""What weights do not tell of the small networks."""


def small(family: str) -> dict[str, Tensor]:
    """The weights of a small network of the record."""
    return weights({name: tuple(shape) for name, shape in RECORDED[family]["shapes"].items()})


def converted(family: str, folder: Path, **changes: Tensor) -> Any:
    """The model that a file with these weights becomes."""
    torch.save({**small(family), **changes}, folder / "own.pt")
    return lodestar.load(lodestar.convert(folder / "own.pt", folder, flags=FLAGS[family]), "cpu", dtype=torch.float32)


@pytest.mark.parametrize("short", sorted(set(NAMES) - set(record.FOLDERS)))
def test_a_preset_has_the_names_and_shapes_of_its_file(short: str) -> None:
    published = BY_SHORT[short]
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in NAMES[short].items()}
    assert recognize(FAMILIES, state, short) is published.family
    config = published.model()
    check(config, facts(published.family, state, short), short, published.name)
    assert ours(published.family, config, state, short).keys() == config.build().state_dict().keys()
    name = min(published.family.landmarks)
    for changed in ({each: value for each, value in state.items() if each != name}, {**state, name: state[name][..., None]}):
        with pytest.raises(Problem, match=name.replace(".", r"\.")):
            recognize(FAMILIES, changed, short)
            check(config, facts(published.family, changed, short), short, published.name)
            ours(published.family, config, changed, short)


@torch.no_grad()
def test_a_vq_vae_2_reconstructs_as_there(tmp_path: Path) -> None:
    model = converted("vqvae2", tmp_path)
    out = record.thinned(model.reconstruct(record.pictures(2, 3, 16, 16)))
    torch.testing.assert_close(out.flatten(), torch.tensor(RECORDED["vqvae2"]["output"]), rtol=1e-4, atol=1e-5)
    with pytest.raises(Problem, match=r"weights do not tell everything \(the size of pictures\).* as in --flag size=256"):
        lodestar.convert(tmp_path / "own.pt", tmp_path)
    with pytest.raises(Problem, match=r"unknown field .flags sizes.*did you mean .size"):
        lodestar.convert(tmp_path / "own.pt", tmp_path, flags={"sizes": 16})


@torch.no_grad()
def test_a_denoising_diffusion_gan_believes_and_steps_as_there(tmp_path: Path) -> None:
    told, x, z = RECORDED["ddgan"], record.pictures(2, 3, 16, 16), record.pictures(2, 10, speed=0.7)
    model = converted("ddgan", tmp_path)
    encoder = model.denoiser.latent
    out = record.thinned(model.denoiser.network(x, torch.tensor([0.0, 3.0]), encoder(z).emb))
    torch.testing.assert_close(out.flatten(), torch.tensor(told["output"]), rtol=1e-3, atol=1e-4)
    means, others, variances = torch.tensor(told["posterior"]).view(3, 4).tolist()
    steps = parse_plan(model.config.steps).steps(model.config.schedule)
    for number, step in enumerate(reversed(steps)):
        assert step.t.time == number
        assert step.coefficients() == pytest.approx((means[number], others[number]), rel=1e-4, abs=1e-6)
        assert number == 0 or step.small == pytest.approx(variances[number], rel=1e-4)
    assert torch.as_tensor(model.sample(count=2, seed=3).images).shape == (2, 3, 16, 16)
    with pytest.raises(Problem, match=r"not tell everything \(the size of pictures, the number of steps\)"):
        lodestar.convert(tmp_path / "own.pt", tmp_path)
    with pytest.raises(Problem, match="resblock_type"):
        lodestar.convert(tmp_path / "own.pt", tmp_path, flags="--resblock_type ddpm")


BIGGAN_SMALL = BigGanConfig(latent=6, classes=5, size=(64, 64), width=8, multipliers=(1, 2, 4, 8, 16), attention=4, statistics=11)
"""The record's BigGAN-deep."""


@torch.no_grad()
def test_a_biggan_deep_makes_the_pictures_of_its_latents_classes_and_truncation(tmp_path: Path) -> None:
    tensors = record.gan_weights({name: tuple(shape) for name, shape in RECORDED["biggan"]["shapes"].items()})
    torch.save(tensors, tmp_path / "biggan.bin")
    known = [Published("huggingface/small", "biggan.bin", lambda: GanConfig(network=BIGGAN_SMALL), BIGGAN)]
    model = lodestar.load(convert(tmp_path / "biggan.bin", tmp_path, FAMILIES, known).path, "cpu", dtype=torch.float32)
    z, label = record.pictures(2, 6, speed=0.7), torch.tensor([1, 4])
    made = torch.stack([model(z, label, truncation) for truncation in (1.0, 0.5)])
    expected = torch.tensor(RECORDED["biggan"]["output"])
    torch.testing.assert_close(made[..., ::9, ::9].flatten(), expected, rtol=1e-3, atol=1e-4)
    # Between two statistics lie those between them.
    ends, middle = (model.network.norm.means[5:7], Told(z, 5.5))
    torch.testing.assert_close(model.network.norm(ends.mean(dim=0)[None, :, None, None], middle).flatten(), plain(model))
    # A temperature is the truncation, of latents within two deviations.
    start = truncated(SeededNoise([7]).start((6, 1, 1)), 2.0)
    sampled = model.sample(label=3, count=1, seed=7, temperature=0.5).images
    assert torch.equal(torch.as_tensor(sampled), pixels.decode(model((0.5 * start).flatten(1), torch.tensor([3]), 0.5)))
    del tensors["generator.gen_z.weight_v"]
    torch.save(tensors, tmp_path / "biggan.bin")
    with pytest.raises(Problem, match=r"generator\.gen_z\.weight_orig has no vectors of its shape beside it"):
        convert(tmp_path / "biggan.bin", tmp_path, FAMILIES, known)
    with pytest.raises(Problem, match="is of kind 'biggan_deep', which is read from files and not trained"):
        TrainGan(model=GanConfig(network=BIGGAN_SMALL)).resolve(DataFacts(3, (64, 64), tuple("abcde")))


def plain(model: Any) -> Tensor:
    """The last norm's output of its mean."""
    shift: Tensor = model.network.norm.bias.relu()
    return shift


DVAE = VQVAECodec(
    network=DvaeConfig(width=64, blocks=1, book=CodebookConfig(codes=512, channels=8, learning="gradient")), size=(16, 16)
)
"""The record's discrete VAE."""


def pickled(at: Path, tensors: dict[str, Tensor]) -> Path:
    """The two files of a discrete VAE, whole modules pickled as published, with attributes of classes unknown here."""
    for part in ("encoder", "decoder"):
        root = nn.Module()
        for name, tensor in tensors.items():
            if name.startswith(f"{part}."):
                *parents, leaf = name.split(".")[1:]
                module: nn.Module = root
                for parent in parents:
                    module.add_module(parent, module._modules.get(parent) or Foreign())
                    module = module.get_submodule(parent)
                module.register_parameter(leaf, nn.Parameter(tensor.clone()))
        torch.save(root, at / f"{part}.pkl")
    return at / "encoder.pkl"


class Foreign(nn.Module):
    """A module of a class that runs code where it is made."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("code of the file's choice was run")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "device": torch.device("cpu"), "shape": torch.Size([1])}


@torch.no_grad()
def test_a_discrete_vae_has_the_codes_and_pictures_of_the_notebook_without_running_its_classes(tmp_path: Path) -> None:
    tensors = record.scattered({name: tuple(shape) for name, shape in RECORDED["dvae"]["shapes"].items()})
    known = [Published("openai/small", "encoder.pkl", lambda: DVAE, DALLE)]
    path = convert(pickled(tmp_path, tensors), tmp_path, FAMILIES, known).path
    model, x = lodestar.load(path, "cpu", dtype=torch.float32), record.pictures(2, 3, 16, 16)
    codes = model.codes(x)
    assert codes[0].flatten().tolist() == RECORDED["dvae"]["codes"] and len(set(RECORDED["dvae"]["codes"])) > 2
    expected = torch.tensor(RECORDED["dvae"]["output"])
    for made in (model.of_codes(codes), model.reconstruct(x), model.pictures(model.latents(x))):
        torch.testing.assert_close(record.thinned(made).flatten(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(Problem, match="is of kind 'dvae', which is read from files and not trained"):
        TrainVQVAE(model=DVAE).resolve(DataFacts(3, (16, 16), None))
    (tmp_path / "decoder.pkl").unlink()
    with pytest.raises(Problem, match=r"is one of a model's files encoder\.pkl and decoder\.pkl, and .*decoder\.pkl is missing"):
        convert(tmp_path / "encoder.pkl", tmp_path, FAMILIES, known)


def folder(at: Path, name: str, kind: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """A folder as diffusers writes it."""
    (at / name).mkdir(exist_ok=True)
    (at / name / "config.json").write_text(json.dumps({"_class_name": kind, **settings}))
    torch.save(tensors, at / name / "diffusion_pytorch_model.bin")
    return at / name


@pytest.mark.parametrize("name", record.FOLDERS)
def test_a_folder_s_settings_make_the_names_and_shapes_of_its_weights(name: str) -> None:
    kind, settings = record.FOLDERS[name]
    told = read(autoencoder_folder.CLASSES[kind], settings, name)
    codec = told.codec(name)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in NAMES[name].items()}
        expected = codec.build().state_dict()
    for beside in told.beside(codec):  # type: ignore[arg-type]
        expected.pop(beside)
    assert rename(state, autoencoder_folder.rules(codec, told.layers_per_block), expected).keys() == expected.keys()


@pytest.mark.parametrize("name", record.DIFFUSERS)
@torch.no_grad()
def test_autoencoders_of_diffusers_encode_and_decode_as_there(name: str, tmp_path: Path) -> None:
    told, x = RECORDED[name], record.pictures(2, 3, 16, 16)
    source = folder(tmp_path, "own", name.partition(" ")[0], told["settings"], small(name))
    model = lodestar.load(lodestar.convert(source, tmp_path), "cpu", dtype=torch.float32)
    z = model.latents(x)
    torch.testing.assert_close(z.flatten(), torch.tensor(told["latents"]), rtol=1e-4, atol=1e-5)
    out = record.thinned(model.reconstruct(x)).flatten()
    torch.testing.assert_close(out, torch.tensor(told["output"]), rtol=1e-4, atol=1e-4)
    if name != "VQModel":
        torch.testing.assert_close(model.posterior(x).logvar.flatten(), torch.tensor(told["logvar"]), rtol=1e-4, atol=1e-4)
    # As diffusers' pipelines scale them.
    shift, scale = told["settings"].get("shift_factor") or 0.0, told["settings"]["scaling_factor"]
    data = ((x + 1) * 127.5).round().to(torch.uint8)
    seen = model.latents(data.float() / 127.5 - 1)
    torch.testing.assert_close(model.encode(data), (seen - shift) * scale, rtol=1e-5, atol=1e-5)
    larger = lodestar.convert(source, tmp_path / "larger", flags="--sample_size 32")
    assert lodestar.load(larger, "cpu").shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"act_fn": "relu"}, "act_fn is 'relu': only 'silu' and 'swish' are read"),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "up_block_types is UpDecoderBlock2D: with 2 resolutions only"),
        ({"use_quant_conv": False}, "use_quant_conv is False, and use_post_quant_conv is not"),
        ({"latents_mean": [0.0]}, "latents_mean has 1 values, and latent_channels is 3"),
        ({"out_channels": 4}, "out_channels is 4, in_channels 3"),
        ({"sample_size": 17}, "size is 17×17: both must be multiples of 2"),
        ({"latent_chanels": 4}, "did you mean 'latent_channels'"),
        ({"block_out_channels": [8, 32]}, "have another shape"),
    ],
)
def test_settings_of_autoencoders_that_are_not_read_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    told = RECORDED["AutoencoderKL"]
    source = folder(tmp_path, "own", "AutoencoderKL", {**told["settings"], **changes}, small("AutoencoderKL"))
    with pytest.raises(Problem) as raised:
        lodestar.convert(source, tmp_path / "out")
    assert said in str(raised.value) and "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_a_folder_that_lacks_a_tensor_is_told_by_its_name(tmp_path: Path) -> None:
    told, tensors = RECORDED["AutoencoderKL"], small("AutoencoderKL")
    tensors["encoder.odd.weight"] = tensors.pop("decoder.conv_out.bias")
    source = folder(tmp_path, "own", "AutoencoderKL", told["settings"], tensors)
    with pytest.raises(Problem, match=r"encoder\.odd\.weight.*network\.out\.bias"):
        lodestar.convert(source, tmp_path)
    with pytest.raises(Problem, match="--sampler and --steps are for diffusion models"):
        lodestar.convert(source, tmp_path, steps=3)
    with pytest.raises(Problem, match="sample_size alone may be another"):
        lodestar.convert(source, tmp_path, flags="--latent_channels 3")


def test_converted_autoencoders_reconstruct_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    converted("vqvae2", tmp_path)
    save_png(tmp_path / "a.png", torch.arange(3 * 16 * 16, dtype=torch.uint8).view(3, 16, 16))
    with pytest.raises(SystemExit) as stop:
        main(["edit", "reconstruct", "own.safetensors", "a.png", "--level", "top", "--out", "out"])
    assert not stop.value.code, capsys.readouterr()
    assert load_png("out/00000.png").shape == (3, 16, 16)
