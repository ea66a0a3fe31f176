"""Models, batches and per-worker gradients of the training loop."""

import numpy as np
import pytest
import torch

import horovod_byz as hb
from horovod_byz.optimizer.buffers import Buffers
from horovod_byz.redundancy.batches import Batches
from horovod_byz.training.gradients import Gradients, take
from horovod_byz.training.layers import BatchNorm2d
from horovod_byz.training.models import MODELS, build, default_options

torch.set_num_threads(1)

COLOUR, GREY = (3, 32, 32), (1, 28, 28)
SMALL = {
    "mlp": (GREY, {"width": 16}),
    "lenet": (GREY, {}),
    "lenet-20-50": (GREY, {"width": 4}),
    "cnn-xie2018": (COLOUR, {"width": 4, "hidden": 16}),
    "cnn-empires": (COLOUR, {"width": 4, "hidden": 16}),
    "resnet18": ((3, 8, 8), {"width": 4}),
    "vgg13-bn": (COLOUR, {"width": 4}),
}


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "options", "expected"),
    [
        ("mlp", GREY, 10, {}, 118_282),
        ("lenet", GREY, 10, {}, 61_706),
        ("lenet-20-50", GREY, 10, {}, 431_080),
        ("cnn-xie2018", COLOUR, 10, {}, 2_431_018),
        ("cnn-empires", COLOUR, 10, {}, 1_310_922),
        ("resnet18", COLOUR, 10, {}, 11_173_962),
        ("vgg13-bn", COLOUR, 100, {}, 9_462_180),
        ("cnn-empires", COLOUR, 10, {"width": 16, "hidden": 64}, 148_634),
        ("resnet18", COLOUR, 10, {"width": 16}, 701_466),
    ],
)
def test_parameter_counts_are_those_of_the_papers(name, shape, classes, options, expected):
    assert count(build(name, shape, classes, **options)) == expected


def test_a_model_depends_on_its_seed_only_and_leaves_the_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build("mlp", GREY, 10, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)


@pytest.mark.parametrize("name", ["lenet", "lenet-20-50", "vgg13-bn"])
def test_images_too_small_for_a_model_are_named(name):
    with pytest.raises(ValueError, match=r"does not fit images of 8x8 pixels .* mlp or resnet18"):
        build(name, (1, 8, 8), 10)


def test_unknown_models_and_options_are_named():
    with pytest.raises(
        ValueError, match=r"unknown model 'alexnet': did you mean 'lenet'. choose one of mlp, lenet"
    ):
        build("alexnet", GREY, 10)
    with pytest.raises(ValueError, match=r"unknown option of model 'mlp' 'depth': .*choose one of width"):
        build("mlp", GREY, 10, depth=3)
    with pytest.raises(ValueError, match=r"got width = 0"):
        build("mlp", GREY, 10, width=0)
    assert default_options("cnn-empires") == {"width": 64, "hidden": 128, "dropout": 0.25}


def made(name, workers, seed=0):
    shape, options = SMALL[name]
    model = build(name, shape, 10, seed=seed, **options)
    return model, Gradients(model, workers, Buffers(model.named_buffers(), count=workers))


def batches(shape, workers, batch=4):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(workers, batch, *shape, generator=generator)
    return images, torch.randint(0, 10, (workers, batch), generator=generator)


@pytest.mark.parametrize("name", MODELS)
def test_rows_equal_autograd_worker_by_worker(name):
    _, gradients = made(name, 3)
    images, labels = batches(SMALL[name][0], 3)
    seeds = [7, 8, 9]
    gradients.compute(images, labels, seeds)
    plain = build(name, SMALL[name][0], 10, seed=0, **SMALL[name][1])
    for worker in range(3):
        torch.manual_seed(seeds[worker])
        loss = torch.nn.functional.cross_entropy(plain(images[worker]), labels[worker])
        expected = torch.cat(
            [gradient.reshape(-1) for gradient in torch.autograd.grad(loss, list(plain.parameters()))]
        )
        torch.testing.assert_close(gradients.rows[worker], expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(gradients.losses[worker], loss.detach())


@pytest.mark.parametrize("name", MODELS)
def test_a_row_has_the_same_bits_whichever_workers_share_its_rank(name):
    images, labels = batches(SMALL[name][0], 5)
    seeds = list(range(5))
    _, together = made(name, 5)
    together.compute(images, labels, seeds)
    _, pair = made(name, 2)
    pair.compute(images[[4, 1]], labels[[4, 1]], [4, 1])
    assert torch.equal(pair.rows, together.rows[[4, 1]])
    assert torch.equal(pair.losses, together.losses[[4, 1]])


@pytest.mark.parametrize("workers", [1, 10, 20, 45])
def test_the_papers_mlp_has_the_same_bits_for_any_number_of_workers(workers):
    images, labels = batches(GREY, 45, batch=32)
    rows = []
    for chosen in (slice(0, workers), slice(0, 1)):
        gradients = Gradients(build("mlp", GREY, 10), len(labels[chosen]))
        gradients.compute(images[chosen], labels[chosen])
        rows.append(gradients.rows)
    assert torch.equal(rows[0][0], rows[1][0])


@pytest.mark.parametrize("name", ["lenet", "cnn-empires", "resnet18"])
def test_workers_with_the_same_batch_send_the_same_bits(name):
    images, labels = batches(SMALL[name][0], 3)
    images[2], labels[2] = images[0], labels[0]
    _, gradients = made(name, 3)
    gradients.compute(images, labels, [5, 6, 5])
    assert torch.equal(gradients.rows[0], gradients.rows[2])
    assert not torch.equal(gradients.rows[0], gradients.rows[1])


def test_each_worker_starts_from_the_same_statistics_and_the_aggregate_moves_them():
    model, gradients = made("resnet18", 2)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images, labels = batches((3, 8, 8), 2)
    images[1], labels[1] = images[0], labels[0]
    gradients.compute(images, labels)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    gradients.buffers._sent = [0]  # this process has one worker
    gradients.buffers.collect()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    gradients.buffers.write()
    alone = build("resnet18", (3, 8, 8), 10, **SMALL["resnet18"][1])
    alone(images[0])
    for name, buffer in alone.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name)), name
    assert model[1].num_batches_tracked == 1


def test_batch_normalisation_is_torchs_but_for_rounding():
    ours, theirs = BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        images = 3 + 2 * torch.randn(4, 3, 5, 5, generator=generator)
        assert torch.equal(ours(images), theirs(images))
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(images), theirs(images))


def test_an_aggregate_becomes_the_gradients_without_a_copy():
    model, gradients = made("mlp", 2)
    images, labels = batches(GREY, 2)
    gradients.compute(images, labels)
    value = gradients.rows[1].numpy().copy()
    gradients.memory.write(value, copy=False)
    for parameter, view in zip(model.parameters(), gradients.memory.views[1], strict=True):
        assert torch.equal(parameter.grad, view)
    value[:] = 7
    assert all(bool((parameter.grad == 7).all()) for parameter in model.parameters())
    gradients.memory.write(value)  # where there are gradients, they are written to
    gradients.memory.write(np.zeros_like(value))
    assert not any(parameter.grad.any() for parameter in model.parameters())


def test_a_sampler_is_a_function_of_seed_step_and_worker():
    batches = Batches(3, 1000, 8, range(6))
    whole = batches.indices(17, range(6))
    assert whole.shape == (6, 8)
    assert np.array_equal(Batches(3, 1000, 8, range(6)).indices(17, [4, 2]), whole[[4, 2]])
    assert not np.array_equal(batches.indices(18, range(6)), whole)
    assert not np.array_equal(Batches(4, 1000, 8, range(6)).indices(17, range(6)), whole)


def test_workers_of_one_group_get_the_same_batches_and_seeds():
    sampler = Batches(0, 1000, 8, [0, 1, 0, 1])
    drawn = sampler.indices(2, range(4))
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])
    assert sampler.model_seed(2, 0) == sampler.model_seed(2, 2) != sampler.model_seed(2, 1)


def test_epochs_deal_out_every_image_once():
    sampler = Batches(0, 100, 5, range(4), "epochs")
    first = np.concatenate([sampler.indices(step, range(4)).ravel() for step in range(5)])
    second = np.concatenate([sampler.indices(step, range(4)).ravel() for step in range(5, 10)])
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("sampling", "batch"), [("random", 101), ("random", 0), ("epochs", 26)])
def test_a_batch_that_the_data_cannot_fill_is_an_error(sampling, batch):
    with pytest.raises(ValueError, match="use a smaller batch"):
        Batches(0, 100, batch, range(4), sampling)


def test_the_public_sampler_deals_what_the_trainers_deals_in_batches_of_one():
    """They drew from different generators, and in different orders; see also `Redundancy.seed_step`."""
    redundancy = hb.Redundancy(2, seed=3)
    groups = [redundancy.group_of(worker, 6) for worker in range(6)]
    batches = Batches(3, 100, 1, groups, "epochs")
    for worker in range(6):
        sampler = redundancy.sampler(range(100), seed=3, worker=worker, workers=6)
        drawn = [*sampler, *sampler]
        assert drawn == [batches.indices(step, [worker]).item() for step in range(66)]
    redundancy.seed_step(4, 6, step=9)
    assert torch.initial_seed() == batches.model_seed(9, 4)


def test_take_gathers_images_and_labels():
    images, labels = torch.arange(24.0).view(6, 1, 2, 2), torch.arange(6)
    x, y = take(images, labels, np.array([[5, 0], [2, 2]]))
    assert x.shape == (2, 2, 1, 2, 2)
    assert y.tolist() == [[5, 0], [2, 2]]
    assert torch.equal(x[0, 0], images[5])
