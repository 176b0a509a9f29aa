"""One training step: loss, gradients, average, precision; the crops that go in, and the weights it starts from."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from runs import CPU, blind, config, options

from nlrn import NLRN
from nlrn.degradations.resize import low_resolution
from nlrn.ops.nonlocal_attention import dense
from nlrn.training import step as training_step
from nlrn.training.config import DEGRADATIONS, Phase, degradation
from nlrn.training.crops import Crops
from nlrn.training.growth import adapt_weights
from nlrn.training.loop import train
from nlrn.training.schedule import ema_weight
from nlrn.training.step import Trainer, TrainingError, step_generator, weighted_loss


def test_only_the_network_trains_with_tf32(data, tmp_path, monkeypatch):
    """Where the GPU has it. What is to be learnt, and the statistics that are used afterwards, are exact."""
    seen = set()

    def noted(kind, function):
        def call(*args):
            seen.add((kind(*args), torch.backends.cuda.matmul.fp32_precision))
            return function(*args)

        return call

    heads = noted(
        lambda model, *_: "trained" if model.conv_a.weight.requires_grad else "average", NLRN.all_heads
    )
    monkeypatch.setattr(NLRN, "all_heads", heads)
    degrade = DEGRADATIONS["gaussian"]
    monkeypatch.setitem(DEGRADATIONS, "gaussian", lambda c: noted(lambda *_: "degraded", degrade(c)))
    before = torch.backends.cuda.matmul.fp32_precision
    train(config(), options(data, tmp_path, 10))
    assert seen == {("trained", "tf32"), ("average", "ieee"), ("degraded", "ieee")}
    assert torch.backends.cuda.matmul.fp32_precision == before


INDUCTOR = pytest.mark.filterwarnings("ignore")  # of torch to torch, which torch otherwise hides


@INDUCTOR
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_fused_norms_train_the_same():
    """Loss, gradients and statistics, with those of the batch and with frozen ones."""
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    plain, fused = (Trainer(config(precision="float32"), CPU) for _ in range(2))
    fused.fuse_norms()
    with torch.no_grad():
        for a, b in zip(plain.model.parameters(), fused.model.parameters(), strict=True):
            b.copy_(a.add_(0.05 * torch.randn_like(a)))  # not the identity that training begins with
    clean = torch.rand(4, 1, 12, 12)
    for frozen in (False, True):
        for trainer in (plain, fused):
            if frozen:
                trainer.freeze_norms()
            trainer.run(clean, step_generator(0, 1, CPU), 1, 0.0)
        gradients = [{name: p.grad for name, p in t.parameters.items()} for t in (plain, fused)]
        largest = max(g.abs().max() for g in gradients[0].values())
        for name, gradient in gradients[0].items():
            assert (gradient - gradients[1][name]).abs().max() < 1e-5 * largest, name
        buffers = [dict(t.model.named_buffers()) for t in (plain, fused)]
        for name, buffer in buffers[0].items():
            torch.testing.assert_close(buffers[1][name], buffer, msg=name)
    assert plain.model.input_norm.num_batches_tracked == 1
    # Three functions, with batch statistics and without.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 6


def test_norms_of_too_many_phases(data, tmp_path):
    """Before the run, and not in its middle."""
    phases = tuple(Phase(1 / 9, 12 + i, 4) for i in range(9))
    with pytest.raises(ValueError, match="for 8 kinds of phases at most, got 9"):
        train(config(phases=phases), options(data, tmp_path, 18, fuse=True))


@INDUCTOR
def test_norms_that_cannot_be_fused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/compiler"))
    torch._dynamo.reset()
    with pytest.raises(TrainingError, match=r"torch\.compile cannot fuse the norms here .*ompiler"):
        train(config(), options(data, tmp_path, 2, fuse=True))


def test_a_step_that_is_not_finite_changes_nothing():
    trainer = Trainer(config(), CPU)
    clean = torch.rand(4, 1, 12, 12)
    for step in range(3):
        trainer.run(clean, step_generator(0, step, CPU), step, 1e-3)

    def everything():
        state = [*trainer.model.state_dict().values(), *trainer.average.state_dict().values()]
        optimizer = [v for o in trainer.optimizers for s in o.state.values() for v in s.values()]
        return [x.clone() for x in state + optimizer if x.is_floating_point()]

    before = everything()
    _, taken = trainer.run(clean * float("nan"), step_generator(0, 3, CPU), 3, 1e-3)
    assert not taken
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    _, taken = trainer.run(clean, step_generator(0, 4, CPU), 4, 1e-3)
    assert taken
    assert any((a != b).any() for a, b in zip(before, everything(), strict=True))


def test_the_loss_weighs_every_level_alike():
    """An error as large as the noise counts 25 times its level (at least 4); those of other heads 0.3 times."""
    levels = torch.tensor([4.0, 25.0, 50.0, 1.0]) / 255
    clean = torch.zeros(4, 1, 3, 3)
    wrong = clean + levels.sqrt().view(-1, 1, 1, 1)
    one = weighted_loss([wrong[:3]], clean[:3], levels[:3], 0.3)
    assert float(one) == pytest.approx(25 / 255)
    assert float(weighted_loss([wrong[3:]], clean[3:], levels[3:], 0.3)) == pytest.approx(25 / 4 / 255)
    assert float(weighted_loss([2 * wrong[:3], wrong[:3]], clean[:3], levels[:3], 0.3)) == pytest.approx(
        2.2 * 25 / 255
    )
    assert float(weighted_loss([wrong[:3]], clean[:3], None, 0.3)) == pytest.approx(float(levels[:3].mean()))


def test_the_average_follows_the_weights():
    """Each step takes a share of the weights' distance from it; one without a finite gradient takes none."""
    settings = config()
    trainer, clean = Trainer(settings, CPU), torch.rand(4, 1, 12, 12)
    trainer.schedule(500, 1e-3)
    weight = ema_weight(500, settings.ema)
    before = {name: x.clone() for name, x in trainer.average.state_dict().items() if x.is_floating_point()}
    trainer.update(*trainer.batch(clean, step_generator(0, 0, CPU)))
    newest, after = trainer.model.state_dict(), trainer.average.state_dict()
    assert 0 < weight < 0.1
    for name, old in before.items():
        torch.testing.assert_close(after[name], old + weight * (newest[name] - old))
    assert not torch.equal(after["output_conv.weight"], before["output_conv.weight"])


def test_bfloat16_convolutions_keep_float32_logits(monkeypatch):
    """Of dense attention, which adds them up in the precision of its queries."""
    dtypes, attention = set(), dense.attention

    def noted(query, *more, **options):
        output, state = attention(query, *more, **options)
        if state is not None:
            dtypes.add((query.dtype, state.logits.dtype))
        return output, state

    monkeypatch.setattr(dense, "attention", noted)
    monkeypatch.setattr("nlrn.ops.nonlocal_attention.native.refusal", lambda *arguments: "is not here")
    trainer = Trainer(config(precision="bfloat16"), CPU)
    loss, taken = trainer.run(torch.rand(4, 1, 12, 12), step_generator(0, 0, CPU), 0, 1e-3)
    assert taken
    assert torch.isfinite(loss)
    assert dtypes == {(torch.float32, torch.float32)}


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_follows_the_processor(monkeypatch, has, dtype):
    """Without instructions for it, bfloat16 takes six times as long as float32."""
    monkeypatch.setattr(training_step, "computes_bfloat16", lambda device: has)
    trainer = Trainer(config(precision="auto"), CPU)
    with trainer.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_crops_stay_inside_and_follow_the_generator():
    ramp = np.arange(30 * 40, dtype=np.uint8).reshape(30, 40)
    crops = Crops([ramp, ramp[:25, :20] // 2], CPU)
    first = crops.draw(64, 18, torch.Generator().manual_seed(1))
    assert first.shape == (64, 1, 18, 18)
    assert torch.equal(first, crops.draw(64, 18, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, crops.draw(64, 18, torch.Generator().manual_seed(2)))
    with pytest.raises(ValueError, match="crops of 21 pixels need images as large; the smallest has 20"):
        crops.draw(1, 21, torch.Generator())


def test_noise_levels_are_stratified():
    degrade = degradation(config(sigma=(10.0, 50.0)))
    _, sigma = degrade(torch.zeros(8, 1, 4, 4), torch.Generator().manual_seed(0))
    assert ((255 * sigma - 10) // 5).tolist() == list(range(8))


def test_margins_are_seen_by_the_degradation_only(monkeypatch):
    trainer = Trainer(blind(margin=4, phases=(Phase(1.0, 8, 2),)), CPU)
    trainer.degrade = lambda clean, generator: (clean.cumsum(3), None)
    clean = torch.rand(2, 1, 16, 16)
    target, degraded, _ = trainer.batch(clean, torch.Generator())
    assert torch.equal(target, clean[:, :, 4:12, 4:12])
    assert torch.equal(degraded, clean.cumsum(3)[:, :, 4:12, 4:12])


def test_a_batch_holds_every_scale_and_quality():
    clean = torch.rand(9, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    degraded, strength = degradation(blind(degradation="bicubic", phases=(Phase(1.0, 24, 9),)))(
        clean, torch.Generator()
    )
    for group, scale in zip(degraded.split(3), (2, 3, 4), strict=True):
        assert torch.equal(group, low_resolution(clean[3 * (scale - 2) : 3 * (scale - 1)], scale))
    assert strength.unique().numel() == 3
    degraded, strength = degradation(blind(degradation="jpeg", phases=(Phase(1.0, 16, 9),)))(
        clean, torch.Generator().manual_seed(0)
    )
    errors = (degraded - clean).square().mean((1, 2, 3)).sqrt()
    assert errors[0] > 2 * errors[-1]
    assert (strength.diff() < 0).all()


def test_weights_for_noise_start_a_blind_network():
    torch.manual_seed(0)
    first, second = NLRN(config().model).eval(), NLRN(blind().model).eval()
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    second.load_state_dict(adapt_weights(first.state_dict(), second.state_dict()))
    norm, bare = first.state_dict(), second.state_dict()
    assert torch.equal(bare["input_conv.weight"], norm["input_conv.weight"][:, :1])
    assert second(torch.rand(1, 1, 9, 9)).isfinite().all()


def test_grey_weights_start_a_colour_network():
    grey = config().model
    colour = dataclasses.replace(grey, channels=3)
    torch.manual_seed(0)
    first, second = NLRN(grey).eval(), NLRN(colour).eval()
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    second.load_state_dict(adapt_weights(first.state_dict(), second.state_dict()))
    image = torch.rand(1, 1, 9, 9)
    expected = first(image, 0.1)
    # A grey image in three channels: each comes out as the grey network's.
    assert (second(image.expand(-1, 3, -1, -1), 0.1) - expected).abs().max() < 1e-4
